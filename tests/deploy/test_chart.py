"""The Helm chart makes what the plain manifests are; `make kubernetes-check` asks Kubernetes' own schemas."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from rabbitry_broker.queue_names import parse, task_queue
from rabbitry_workers.cli import _parser
from tools.render_chart import CHART, TemplateError, render, render_chart

ROOT = Path(__file__).resolve().parent.parent.parent
GPU = {
    "cpus": 4,
    "gpus": 1,
    "memory": "16Gi",
    "sharedMemory": "512Mi",
    "queue": "task.CPU=1,GPU=1",
    "messagesPerNode": 2,
    "replicas": 1,
    "minReplicas": 0,
    "maxReplicas": 4,
    "labels": "zone=a,disk=ssd",
    "nodeSelector": {"accelerator": "a100"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
}


def objects(**settings: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the objects of the chart by kind and name."""
    rendered = render_chart(settings={name.replace("__", "."): value for name, value in settings.items()})
    found = [
        each
        for name, text in rendered.items()
        if name.endswith(".yaml")
        for each in yaml.safe_load_all(text)
        if each is not None
    ]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_node_is_that_of_the_plain_manifests(kind: str) -> None:
    gpu = {**GPU, "labels": "", "nodeSelector": {}, "tolerations": []}
    made = copy.deepcopy(objects(nodes__gpu=gpu)["Deployment", f"rabbitry-nodes-{kind}"]["spec"]["template"]["spec"])
    plain = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / f"nodes-{kind}.yaml").read_text())
    wanted = next(each for each in plain if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    [container], [other] = made["containers"], wanted["containers"]
    assert container.pop("imagePullPolicy") == "IfNotPresent"
    prefix, drain = container.pop("env")
    assert prefix == {"name": "RABBITRY_PREFIX", "value": "rabbitry:"}
    assert [drain] == other.pop("env")
    # Without GPUs the plain manifest leaves the argument out.
    assert container["args"][: len(other["args"])] == other["args"]
    del container["args"], other["args"]
    assert made == wanted


def test_nodes_are_scaled_by_a_queue_that_rabbitry_has() -> None:
    made = objects(nodes__gpu=GPU, prefix="mine:")
    for kind in ("cpu", "gpu"):
        scaled = made["ScaledObject", f"rabbitry-nodes-{kind}"]["spec"]
        assert ("Deployment", scaled["scaleTargetRef"]["name"]) in made
        [trigger] = scaled["triggers"]
        assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in made
        queue = trigger["metadata"]["queueName"].removeprefix("mine:")
        assert queue == task_queue(parse(queue).resource_class)
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert "replicas" not in made["Deployment", f"rabbitry-nodes-{kind}"]["spec"]


def test_without_keda_the_number_of_nodes_is_fixed() -> None:
    made = objects(autoscaling__enabled=False)
    assert {kind for kind, _ in made} == {"Deployment"}
    assert made["Deployment", "rabbitry-nodes-cpu"]["spec"]["replicas"] == 2


def test_the_command_of_a_node_is_one_that_rabbitry_takes() -> None:
    spec = objects(nodes__gpu=GPU)["Deployment", "rabbitry-nodes-gpu"]["spec"]["template"]["spec"]
    program, *arguments = spec["containers"][0]["args"]
    options = _parser().parse_args(arguments)
    assert program == "rabbitry"
    assert (options.num_cpus, options.num_gpus, options.labels) == (4, 1, {"zone": "a", "disk": "ssd"})
    assert spec["nodeSelector"] == GPU["nodeSelector"]
    assert spec["tolerations"] == GPU["tolerations"]


def test_time_to_drain_is_shorter_than_the_time_to_end() -> None:
    spec = objects(drainSeconds=100)["Deployment", "rabbitry-nodes-cpu"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > 100
    assert {"name": "RABBITRY_DRAIN_SECONDS", "value": "100"} in spec["containers"][0]["env"]


def test_the_chart_is_of_this_version() -> None:
    from rabbitry import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


@pytest.mark.parametrize(
    "template",
    ["{{ .Values.missing }}", "{{ end }}", "{{ if .Values.a }}", "{{ .Values.a | upper }}", '{{ include "x" . }}'],
)
def test_what_the_renderer_does_not_know_is_an_error(template: str) -> None:
    with pytest.raises(TemplateError):
        render(template, {"Values": {"a": 1}})


def test_blanks_are_trimmed_as_helm_does() -> None:
    template = "a:\n  {{- if .Values.on }}\n  b: {{ .Values.n | quote }}\n  {{- end }}\n"
    assert render(template, {"Values": {"on": True, "n": 1}}) == 'a:\n  b: "1"\n'
    assert render(template, {"Values": {"on": False, "n": 1}}) == "a:\n"

"""What can be said of the files for containers without an engine that runs them; `make compose-test` runs them."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from rabbitry_broker.queue_names import QueueKind, parse, task_queue
from rabbitry_broker.settings import Settings
from tools.make_env import env_text, write_env

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
REQUIRED = {"RABBITMQ_PASSWORD", "REDIS_PASSWORD", "RABBITRY_SECRET", "RABBITRY_DASHBOARD_TOKEN"}


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
    return found


def variables(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, flags=re.MULTILINE))


def test_the_example_lists_every_variable_that_compose_reads_with_its_default() -> None:
    used = re.findall(r"(?<!\$)\$\{([A-Z_]+)(?::([-?])([^}]*))?\}", COMPOSE)
    example = variables(EXAMPLE)
    assert {name for name, *_ in used} <= set(example)
    for name, kind, default in used:
        if kind == "-":
            assert example[name] == default, name


def test_there_are_no_default_passwords() -> None:
    used = re.findall(r"\$\{([A-Z_]+):(.)", COMPOSE)
    assert {name for name, kind in used if kind == "?"} == REQUIRED
    assert all(kind == "?" for name, kind in used if name in REQUIRED)
    assert all(variables(EXAMPLE)[name] == "..." for name in REQUIRED)


def test_only_this_host_reaches_the_servers() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert len(ports) == 6
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_v1_can_read_it() -> None:
    # What v2 has beyond it; v1 refuses the whole file, also for those who want none of that.
    whole = yaml.safe_load(COMPOSE)
    assert set(whole) <= {"services", "volumes", "networks"}
    v2_only = {"develop", "pull_policy", "attach", "annotations", "configs", "secrets", "gpus", "models"}
    assert not any(v2_only & set(service) for service in services().values())


def test_a_node_has_time_to_drain() -> None:
    worker, example = services()["worker"], variables(EXAMPLE)
    assert "RABBITRY_DRAIN_SECONDS" in worker["environment"]["RABBITRY_DRAIN_SECONDS"]
    assert "WORKER_STOP_GRACE" in worker["stop_grace_period"]
    assert int(example["WORKER_STOP_GRACE"].removesuffix("s")) > int(example["RABBITRY_DRAIN_SECONDS"])


def test_every_service_is_checked() -> None:
    assert "HEALTHCHECK" in (ROOT / "workers" / "Dockerfile").read_text()
    assert all("healthcheck" in service for name, service in services().items() if name != "worker")
    assert set(services()["worker"]["depends_on"]) == {"rabbitmq", "redis"}


@pytest.mark.parametrize("name", ["rabbitmq.conf", "redis.conf"])
def test_every_setting_has_its_reason(name: str) -> None:
    lines = (ROOT / "broker" / name).read_text().splitlines()
    settings = [at for at, line in enumerate(lines) if line and not line.startswith("#")]
    assert len(settings) > 5
    for at in settings:
        start = at
        while lines[start - 1] and not lines[start - 1].startswith("#"):
            start -= 1
        assert lines[start - 1].startswith("#"), lines[at]


def test_the_env_that_is_made_has_secrets_of_its_own_and_nobody_else_reads_it(tmp_path: Path) -> None:
    write_env(tmp_path / ".env", {"REDIS_PORT": "7000"})
    made = variables((tmp_path / ".env").read_text())
    assert set(made) == set(variables(EXAMPLE))
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert len({made[name] for name in REQUIRED}) == 4
    assert all(len(made[name]) == 48 for name in REQUIRED)
    assert "..." not in made.values()
    assert made != variables(env_text(EXAMPLE))
    with pytest.raises(FileExistsError):
        write_env(tmp_path / ".env")
    settings = Settings.load(environment=made, env_file=None)
    assert (
        settings.broker_url.get_secret_value() == f"amqp://rabbitry:{made['RABBITMQ_PASSWORD']}@127.0.0.1:5672/rabbitry"
    )
    assert settings.store_url.get_secret_value() == f"redis://:{made['REDIS_PASSWORD']}@127.0.0.1:7000/0"


# What KEDA 2 knows in a ScaledObject and in a trigger of RabbitMQ; a misspelt field would be ignored.
SCALED_OBJECT = {
    "scaleTargetRef",
    "pollingInterval",
    "cooldownPeriod",
    "initialCooldownPeriod",
    "idleReplicaCount",
    "minReplicaCount",
    "maxReplicaCount",
    "fallback",
    "advanced",
    "triggers",
}
TRIGGER = {"type", "metadata", "authenticationRef", "name", "metricType", "useCachedMetrics"}
RABBITMQ_TRIGGER = {"protocol", "queueName", "mode", "value", "activationValue", "vhostName", "excludeUnacknowledged"}


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_manifests_name_each_other_and_a_queue_of_rabbitry(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert all({"apiVersion", "kind", "metadata", "spec"} <= set(each) for each in documents)
    by_kind = {each["kind"]: each for each in documents}
    if "Deployment" not in by_kind:
        return
    deployment, scaled = by_kind["Deployment"], by_kind["ScaledObject"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    pod = deployment["spec"]["template"]
    assert pod["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    container = pod["spec"]["containers"][0]
    drain = next(int(each["value"]) for each in container["env"] if each["name"] == "RABBITRY_DRAIN_SECONDS")
    assert pod["spec"]["terminationGracePeriodSeconds"] > drain
    assert set(scaled["spec"]) <= SCALED_OBJECT
    assert 0 <= scaled["spec"]["minReplicaCount"] < scaled["spec"]["maxReplicaCount"]
    (trigger,) = scaled["spec"]["triggers"]
    assert set(trigger) <= TRIGGER
    assert trigger["type"] == "rabbitmq"
    assert set(trigger["metadata"]) <= RABBITMQ_TRIGGER
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    queue = trigger["metadata"]["queueName"].removeprefix("rabbitry:")
    place = parse(queue)
    assert place.kind is QueueKind.TASK
    assert queue == task_queue(place.resource_class)
    authentication = yaml.safe_load((path.parent / "trigger-authentication.yaml").read_text())
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]

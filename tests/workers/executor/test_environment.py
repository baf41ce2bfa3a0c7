"""Environment variables of executors, and the names of a node's GPUs."""

from __future__ import annotations

import os

import pytest

from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.executor.environment import Environment, expanded
from rabbitry_workers.node.model.ledger import Ledger, gpu_names


@pytest.mark.parametrize(
    ("variables", "result"),
    [
        ({"A": "x:${PATH}:y"}, {"A": "x:/bin:y"}),
        ({"A": "$PATH"}, {"A": "/bin"}),
        ({"PATH": "/mine:${PATH}"}, {"PATH": "/mine:/bin"}),
        ({"A": "${B}", "B": "${C}", "C": "c"}, {"A": "c", "B": "c", "C": "c"}),
        ({"A": "${B}", "B": "${A}"}, {"A": "", "B": ""}),
        ({"A": "${NONE}|$NONE|$$|${PATH|a$"}, {"A": "|$NONE|$$|${PATH|a$"}),
    ],
)
def test_what_a_variable_names_is_put_in(variables, result):
    assert expanded(variables, {"PATH": "/bin"}) == result


def test_gpus_keep_the_names_that_the_node_knows_them_by(monkeypatch):
    totals = ResourceRequest.from_floats({"GPU": 2})
    for text, names in (
        ("4,5", ["4", "5"]),
        ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b", "GPU-c"]),
        ("3", None),
        ("", None),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert gpu_names(totals) == names
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    grant = Ledger(totals, gpu_names(totals)).acquire(ResourceRequest.from_floats({"GPU": 0.5}))
    assert grant is not None
    assert grant.gpu_ids == ("4",)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_names(totals) is None


def test_a_process_is_shown_what_its_grant_holds(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    environment = Environment()
    environment.show("CPU=2,GPU=1", ["5"])
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]) == ("5", "2")
    environment.show("none", None)
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]) == ("4,5", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Environment().show("CPU=2", None)
    assert os.environ["OMP_NUM_THREADS"] == "3"

"""What `/metrics` says of the machines that nodes run on."""

from __future__ import annotations

from typing import Any

from rabbitry_workers.http.metrics import _of_machines


def samples(*nodes: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for key, value in sample.labels.items() if key not in ("node", "node_id"))): sample.value
        for family in _of_machines(("name", "id", node) for node in nodes)
        for sample in family.samples
    }


def test_a_machine_and_its_gpus() -> None:
    gpus = [["GPU 0 (A100)", 0.25, 10, 40], ["GPU 1 (A100)", None, None, None]]
    assert samples({"load": [0.5, 30, 100], "figures": {"gpus": gpus}}) == {
        ("rabbitry_machine_processors_busy",): 0.5,
        ("rabbitry_machine_memory_bytes", "used"): 30,
        ("rabbitry_machine_memory_bytes", "free"): 70,
        ("rabbitry_gpu_busy", "GPU 0 (A100)"): 0.25,
        ("rabbitry_gpu_memory_bytes", "GPU 0 (A100)", "used"): 10,
        ("rabbitry_gpu_memory_bytes", "GPU 0 (A100)", "free"): 30,
    }


def test_what_is_not_known_is_not_told() -> None:
    assert samples({"load": [-1.0, 0, 0]}, {}) == {}

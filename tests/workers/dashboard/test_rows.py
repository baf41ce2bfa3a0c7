"""Rows of the pages, from what nodes say of themselves."""

from __future__ import annotations

from typing import Any

from rabbitry_workers.dashboard.cluster import rows
from rabbitry_workers.dashboard.pages.nodes import _shares

GPU = ["GPU 0 (A100)", 0.25, 10 << 30, 40 << 30]


def record(*, alive: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "id": b"\x01" * 28,
        "name": "n",
        "hostname": "h",
        "alive": alive,
        "draining": False,
        "pid": 7,
        "started": 1.0,
        "totals": {"CPU": 2.0, "GPU": 1.0},
        "available": {"CPU": 1.0, "GPU": 1.0},
        "labels": {},
        "objects": (0, 0),
        **more,
    }


def test_a_node_shows_how_busy_its_gpus_are() -> None:
    node = rows.node(record(figures={"gpus": [GPU]}), ())
    assert ("GPU 0 (A100)", "25% busy, 10.0 GiB of 40.0 GiB", 0.25) in _shares(node)
    assert ("GPU (lent)", "0 of 1 lent", 0.0) in _shares(node)


def test_a_dead_node_uses_nothing() -> None:
    assert rows.node(record(alive=False, figures={"gpus": [GPU]}), ()).gpus == ()


def test_a_node_that_tells_no_figures_has_a_row() -> None:
    assert rows.node(record(), ()).gpus == []

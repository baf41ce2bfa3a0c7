"""Writes the dashboard of deploy/monitoring/grafana: its panels are a table here, the rest is what Grafana wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

TARGET: Final = Path(__file__).resolve().parent.parent / "deploy/monitoring/grafana/dashboards/rabbitry.json"
WIDTH: Final = 8
HEIGHT: Final = 8
COLUMNS: Final = 3

# Title, unit, [(query, legend)], kind.
ROWS: Final[list[tuple[str, list[tuple[str, str, list[tuple[str, str]], str]]]]] = [
    (
        "Tasks",
        [
            (
                "Ended per second",
                "ops",
                [("sum by (state) (rate(rabbitry_tasks_ended_total[$__rate_interval]))", "{{state}}")],
                "timeseries",
            ),
            (
                "Not ended",
                "short",
                [("sum by (state) (rabbitry_tasks)", "{{state}}")],
                "timeseries",
            ),
            (
                "Failed per second, by error",
                "ops",
                [
                    (
                        'sum by (error) (rate(rabbitry_tasks_ended_total{state="FAILED"}[$__rate_interval]))',
                        "{{error}}",
                    )
                ],
                "timeseries",
            ),
            (
                "Ended per second, by function",
                "ops",
                [("topk(10, sum by (function) (rate(rabbitry_tasks_ended_total[$__rate_interval])))", "{{function}}")],
                "timeseries",
            ),
            (
                "Run time",
                "s",
                [
                    (
                        f"histogram_quantile({share}, sum by (le) "
                        "(rate(rabbitry_task_run_seconds_bucket[$__rate_interval])))",
                        f"{share:.0%}",
                    )
                    for share in (0.5, 0.95, 0.99)
                ],
                "timeseries",
            ),
            (
                "Wait before the beginning",
                "s",
                [
                    (
                        f"histogram_quantile({share}, sum by (le) "
                        "(rate(rabbitry_task_wait_seconds_bucket[$__rate_interval])))",
                        f"{share:.0%}",
                    )
                    for share in (0.5, 0.95, 0.99)
                ],
                "timeseries",
            ),
        ],
    ),
    (
        "Nodes and actors",
        [
            ("Nodes", "short", [("sum by (state) (rabbitry_nodes)", "{{state}}")], "timeseries"),
            (
                "CPUs in use",
                "short",
                [
                    (
                        'sum(rabbitry_node_resources{resource="CPU"}) - '
                        'sum(rabbitry_node_resources_available{resource="CPU"})',
                        "in use",
                    ),
                    ('sum(rabbitry_node_resources{resource="CPU"})', "all"),
                ],
                "timeseries",
            ),
            ("Worker processes", "short", [("sum by (state) (rabbitry_workers)", "{{state}}")], "timeseries"),
            (
                "Waiting on nodes",
                "short",
                [("sum by (node) (rabbitry_node_tasks_waiting)", "{{node}}")],
                "timeseries",
            ),
            ("Actors", "short", [("sum by (state) (rabbitry_actors)", "{{state}}")], "timeseries"),
            (
                "Shared memory for objects",
                "bytes",
                [("sum by (state) (rabbitry_object_memory_bytes)", "{{state}}")],
                "timeseries",
            ),
            (
                "Processors of machines",
                "percentunit",
                [("rabbitry_machine_processors_busy", "{{node}}")],
                "timeseries",
            ),
            ("GPUs", "percentunit", [("rabbitry_gpu_busy", "{{node}} {{gpu}}")], "timeseries"),
            (
                "Memory of GPUs",
                "bytes",
                [('rabbitry_gpu_memory_bytes{state="used"}', "{{node}} {{gpu}}")],
                "timeseries",
            ),
        ],
    ),
    (
        "Servers",
        [
            (
                "Messages in queues",
                "short",
                [("topk(10, sum by (queue) (rabbitry_queue_messages))", "{{queue}}")],
                "timeseries",
            ),
            (
                "Memory of Redis",
                "bytes",
                [
                    ("rabbitry_redis_used_memory_bytes", "used"),
                    ("rabbitry_redis_maxmemory_bytes > 0", "limit"),
                    ("rabbitry_events_bytes", "events"),
                ],
                "timeseries",
            ),
            (
                "Round trip to Redis",
                "s",
                [("max by (node) (rabbitry_node_redis_round_trip_seconds)", "{{node}}")],
                "timeseries",
            ),
            (
                "Confirmed by RabbitMQ per second",
                "ops",
                [
                    (
                        "sum by (node) (rate(rabbitry_node_confirmed_messages_total[$__rate_interval]))",
                        "{{node}}",
                    )
                ],
                "timeseries",
            ),
            ("Objects in the store", "short", [("rabbitry_objects", "objects")], "timeseries"),
            (
                "Put aside, dropped events",
                "short",
                [
                    ("increase(rabbitry_put_aside_total[$__rate_interval])", "put aside"),
                    ("sum(increase(rabbitry_node_events_dropped_total[$__rate_interval]))", "events dropped"),
                ],
                "timeseries",
            ),
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    source = {"type": "prometheus", "uid": "prometheus"}
    y = 0
    for title, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
                "panels": [],
            }
        )
        y += 1
        for at, (name, unit, queries, kind) in enumerate(row):
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": kind,
                    "title": name,
                    "datasource": source,
                    "gridPos": {
                        "x": at % COLUMNS * WIDTH,
                        "y": y + at // COLUMNS * HEIGHT,
                        "w": WIDTH,
                        "h": HEIGHT,
                    },
                    "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                    "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
                    "targets": [
                        {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend, "datasource": source}
                        for number, (query, legend) in enumerate(queries)
                    ],
                }
            )
        y += -(-len(row) // COLUMNS) * HEIGHT
    return {
        "uid": "rabbitry",
        "title": "rabbitry",
        "tags": ["rabbitry"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }


def main() -> None:
    """Write the file."""
    TARGET.write_text(json.dumps(dashboard(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

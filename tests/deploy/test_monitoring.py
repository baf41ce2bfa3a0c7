"""The files of the profile `monitoring`: Prometheus, its alerts, and Grafana's dashboard.

Where promtool is installed (Debian's package `prometheus` has it) it checks them, and runs the tests of the alerts.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.make_grafana_dashboard import TARGET, dashboard

ROOT = Path(__file__).resolve().parent.parent.parent
MONITORING = ROOT / "deploy" / "monitoring"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SOURCE = (ROOT / "workers" / "rabbitry_workers" / "http" / "metrics.py").read_text()


def told() -> set[str]:
    """Return the names of the figures that the service tells, as its source has them."""
    names = set(re.findall(r'"(rabbitry_[a-z_]+)"', SOURCE))
    for each in re.findall(r'\("([a-z_]+)", "[^"]*memory[^"]*"', SOURCE, flags=re.IGNORECASE):
        names.add(f"rabbitry_redis_{each}_bytes")
    return names | {"rabbitry_redis_used_memory_bytes", "rabbitry_redis_maxmemory_bytes"}


def used_in(text: str) -> set[str]:
    found = set(re.findall(r"\b(rabbitry_[a-z_]+)", text))
    return {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in found}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def test_every_alert_says_what_and_why() -> None:
    assert len(alerts()) >= 10
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())


def test_alerts_and_panels_ask_for_figures_that_there_are() -> None:
    asked = used_in(" ".join(rule["expr"] for rule in alerts()))
    assert asked
    assert asked <= told(), asked - told()
    queries = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ()))
    assert used_in(queries) <= told(), used_in(queries) - told()


def test_the_dashboard_is_what_its_table_says() -> None:
    made = json.loads(TARGET.read_text())
    assert made == dashboard(), "run python tools/make_grafana_dashboard.py"
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    assert len(panels) >= 15
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_compose_mounts_files_that_there_are_and_only_with_the_profile() -> None:
    for name in ("prometheus", "grafana"):
        service = COMPOSE["services"][name]
        assert service["profiles"] == ["monitoring"]
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == ["dashboard:8265"]
    assert scrape["authorization"]["credentials_file"] == "/run/rabbitry/dashboard_token"
    prometheus = COMPOSE["services"]["prometheus"]
    assert "> /run/rabbitry/dashboard_token" in prometheus["entrypoint"][2] and prometheus["tmpfs"] == ["/run/rabbitry"]
    source = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["uid"] == dashboard()["panels"][1]["datasource"]["uid"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: Debian has it in `prometheus`")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
    ids=lambda each: each[-1],
)
def test_promtool_finds_nothing(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""The dashboard, the alerts and the metrics that the processes export speak of the same things."""

import json
import re
import runpy
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry, generate_latest

from fl_client.observers.prometheus import Metrics
from fl_server.observers import prometheus

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
MAKER = runpy.run_path(str(MONITORING / "make_dashboard.py"))
OF_EVERY_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "up"}
NEEDED = (
    "rounds", "loss", "accuracy", "cohort", "rejected_replies", "phase_seconds", "received_bytes", "sent_bytes",
    "memory_bytes", "connected_clients",
)  # fmt: skip


def names(query):
    """Return the metrics that a query names."""
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", query)
    return set(re.findall(r"\b(?:parterre_\w+|process_\w+|up)\b", plain))


def exported(tmp_path):
    client = CollectorRegistry()
    Metrics(client)
    server = prometheus.registry(tmp_path, tmp_path / "state.db", dict)
    samples = re.findall(r"^(\w+)(?:\{| )", (generate_latest(server) + generate_latest(client)).decode(), re.MULTILINE)
    declared = re.findall(r"^# TYPE (\w+) gauge", generate_latest(server).decode(), re.MULTILINE)
    return {*samples, *declared, *OF_EVERY_PROCESS}


def test_the_dashboard_is_as_its_maker_makes_it():
    assert json.loads((MONITORING / "grafana" / "parterre.json").read_text()) == MAKER["dashboard"]()


def test_the_dashboard_and_the_alerts_ask_only_for_what_is_exported(tmp_path):
    rules = yaml.safe_load((MONITORING / "rules.yml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    asked = set().union(*map(names, [*MAKER["queries"](), *alerts]))
    assert asked <= exported(tmp_path)


def test_the_dashboard_shows_what_a_federation_is_watched_by():
    asked = " ".join(MAKER["queries"]())
    assert not [name for name in NEEDED if f"parterre_{name}" not in asked]


def test_the_ports_that_are_scraped_are_those_that_compose_opens():
    compose = (ROOT / "compose.monitoring.yaml").read_text()
    scraped = (MONITORING / "prometheus.yml").read_text()
    assert re.findall(r'FL_METRICS_PORT: "(\d+)"', compose) == re.findall(r"port: (\d+)", scraped)

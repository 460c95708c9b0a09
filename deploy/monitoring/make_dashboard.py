"""Writes grafana/parterre.json, the dashboard: `python deploy/monitoring/make_dashboard.py`. Change it here."""

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent / "grafana" / "parterre.json"
SOURCE = {"type": "prometheus", "uid": "parterre-prometheus"}
WIDTH, TALL, LOW = 24, 8, 4

Panel = dict[str, Any]
Query = tuple[str, str]

# (title, unit, decimals, query)
FIGURES = (
    ("Round", "none", 0, "parterre_round"),
    ("of", "none", 0, "parterre_rounds_wanted"),
    ("Accuracy", "percentunit", 1, "parterre_accuracy"),
    ("Loss", "none", 3, "parterre_loss"),
    ("Connected clients", "none", 0, "parterre_connected_clients"),
    ("Rejected replies", "none", 0, "sum(parterre_rejected_replies_total)"),
)
# (title, unit, ((query, legend), ...))
GRAPHS: tuple[tuple[str, str, tuple[Query, ...]], ...] = (
    ("Loss", "none", (("parterre_loss", "{{evaluated_on}}"),)),
    ("Accuracy", "percentunit", (("parterre_accuracy", "{{evaluated_on}}"),)),
    (
        "Rounds a minute",
        "none",
        (
            ("60 * rate(parterre_rounds_total[1m])", "completed"),
            ("60 * rate(parterre_rounds_repeated_total[1m])", "repeated"),
        ),
    ),
    (
        "Cohort",
        "none",
        (
            ("parterre_cohort_clients", "asked"),
            ("parterre_cohort_replies", "good replies"),
            ("parterre_connected_clients", "connected"),
        ),
    ),
    (
        "Rejected replies a minute",
        "none",
        (("60 * sum by (reason) (rate(parterre_rejected_replies_total[1m]))", "{{reason}}"),),
    ),
    ("Seconds by phase, of a second", "s", (("rate(parterre_phase_seconds_total[1m])", "{{phase}}"),)),
    (
        "Seconds of a round",
        "s",
        (
            ("histogram_quantile(0.5, sum by (le) (rate(parterre_round_seconds_bucket[5m])))", "median"),
            ("histogram_quantile(0.9, sum by (le) (rate(parterre_round_seconds_bucket[5m])))", "9 of 10"),
        ),
    ),
    (
        "Bytes a second",
        "Bps",
        (
            ("rate(parterre_received_bytes_total[1m])", "from clients"),
            ("rate(parterre_sent_bytes_total[1m])", "to clients"),
        ),
    ),
    (
        "Memory",
        "bytes",
        (
            ("parterre_memory_bytes", "{{process}}"),
            ('process_resident_memory_bytes{job="client"}', "client {{instance}}"),
        ),
    ),
    (
        "Clients: seconds of a message",
        "s",
        (
            (
                "sum by (type) (rate(parterre_client_message_seconds_sum[5m])) / "
                "sum by (type) (rate(parterre_client_message_seconds_count[5m]))",
                "{{type}}",
            ),
        ),
    ),
    (
        "Clients: errors a minute",
        "none",
        (("60 * sum by (type) (rate(parterre_client_errors_total[1m]))", "{{type}}"),),
    ),
    (
        "Clients: processor",
        "percentunit",
        (('rate(process_cpu_seconds_total{job="client"}[1m])', "client {{instance}}"),),
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana provisions it."""
    return {
        "uid": "parterre",
        "title": "Parterre",
        "tags": ["federated-learning"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "annotations": {"list": [_runs()]},
        "panels": [*_figures(), *_graphs()],
    }


def queries() -> list[str]:
    """Return every query of the dashboard."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [*shown, _runs()["expr"]]


def _runs() -> dict[str, Any]:
    return {
        "name": "Runs",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": "changes(parterre_runs_started_total[15s]) > 0",
        "titleFormat": "a run started",
    }


def _figures() -> list[Panel]:
    width = WIDTH // len(FIGURES)
    return [
        _panel(
            "stat", number, title, unit, [(query, "")], {"h": LOW, "w": width, "x": number * width, "y": 0}, decimals
        )
        for number, (title, unit, decimals, query) in enumerate(FIGURES)
    ]


def _graphs() -> list[Panel]:
    width = WIDTH // 3
    return [
        _panel(
            "timeseries",
            len(FIGURES) + number,
            title,
            unit,
            list(shown),
            {"h": TALL, "w": width, "x": number % 3 * width, "y": LOW + number // 3 * TALL},
        )
        for number, (title, unit, shown) in enumerate(GRAPHS)
    ]


def _panel(
    kind: str,
    number: int,
    title: str,
    unit: str,
    shown: list[Query],
    place: dict[str, int],
    decimals: int | None = None,
) -> Panel:
    defaults: dict[str, Any] = {"unit": unit} | ({} if decimals is None else {"decimals": decimals})
    return {
        "id": number + 1,
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(shown)
        ],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(dashboard(), indent=1) + "\n")

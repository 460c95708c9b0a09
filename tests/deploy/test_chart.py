"""The chart without a cluster: it lints, renders to what a current Kubernetes takes, and refuses wrong values."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from fl_common.settings import parse
from tests.deploy.helm import CHART, ELSEWHERE, EVERYTHING, OPERATORS, ROOT, found, helm, rendered

CURRENT = kubernetes_validate.latest_version()
FOREIGN = {"Certificate", "ServiceMonitor"}


def against_schema(manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        kubernetes_validate.validate(manifest, CURRENT, strict=True)


def pods(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    templates = [each["spec"]["template"]["spec"] for each in manifests if "template" in each.get("spec", {})]
    return [*templates, *(each["spec"] for each in manifests if each["kind"] == "Pod")]


def test_the_chart_lints_in_strict_mode() -> None:
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_catches_a_template_that_does_not_render(tmp_path: Path) -> None:
    broken = shutil.copytree(CHART, tmp_path / "parterre")
    (broken / "templates" / "run.yaml").write_text("{{- if }}")
    done = helm("lint", "--strict", broken)
    assert done.returncode == 1
    assert "run.yaml" in done.stdout


@pytest.mark.parametrize("values", [{}, EVERYTHING, ELSEWHERE], ids=["default", "everything", "elsewhere"])
def test_every_manifest_is_one_that_a_current_kubernetes_takes(values: dict[str, Any]) -> None:
    against_schema(rendered(values))


def test_the_check_against_the_schema_catches_a_misspelt_field() -> None:
    manifests = rendered()
    manifests[0]["spec"]["podSelectr"] = manifests[0]["spec"].pop("podSelector")
    with pytest.raises(kubernetes_validate.ValidationError):
        against_schema(manifests)


def test_resources_of_operators_are_rendered_only_where_they_are_asked_for() -> None:
    assert not {each["kind"] for each in rendered()} & FOREIGN
    manifests = rendered(OPERATORS)
    assert {each["kind"] for each in manifests} >= FOREIGN
    against_schema([each for each in manifests if each["kind"] not in FOREIGN])
    certificate = found(manifests, "Certificate", "fl-tls")
    assert "fl-server.garden.svc" in certificate["spec"]["dnsNames"]
    assert certificate["spec"]["ipAddresses"] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clients": {"replicas": "three"}}, "clients.replicas: Invalid type. Expected: integer, given: string"),
        ({"clients": {"kind": "DaemonSet"}}, 'must be one of the following: "Deployment", "StatefulSet"'),
        ({"clinets": {}}, "Additional property clinets is not allowed"),
        ({"settings": {"rounds": [1]}}, "settings.rounds: Invalid type"),
        ({"server": {"storage": "five"}}, "server.storage: Does not match pattern"),
        ({"clients": {"server": "fl.example.org:443"}}, "its enrolment token is needed"),
        ({"clients": {"data": {"storage": "1Gi"}}}, "needs clients.kind=StatefulSet"),
        ({"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 2}}, "must be at most maxReplicas (2)"),
        ({"tls": {"certManager": {"enabled": True}}}, "issuerRef.name, the issuer that signs"),
        ({"tls": {"existingSecret": "x", "certManager": {"enabled": True, "issuerRef": {"name": "ca"}}}}, "set one of"),
        ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.host"),
        ({"podDisruptionBudget": {"enabled": True, "minAvailable": 3}}, "no node could ever be drained"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(values: dict[str, Any], said: str) -> None:
    done = helm("template", "fl", CHART, values=values)
    assert done.returncode != 0
    assert said in done.stderr


def test_no_container_may_write_its_image_or_gain_privileges() -> None:
    for pod in pods(rendered(EVERYTHING)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False, "a Service fl-metrics sets FL_METRICS_PORT, which is a setting"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_no_probe_asks_a_socket_that_may_be_on_loopback() -> None:
    text = json.dumps(rendered(EVERYTHING))
    assert "tcpSocket" not in text
    assert text.count('"livenessProbe"') == 2


def test_clients_reach_fleet_only_and_only_run_pods_reach_control() -> None:
    rules = found(rendered(), "NetworkPolicy", "fl-server")["spec"]["ingress"]
    who = {
        rule["ports"][0]["port"]: [
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]
        ]
        for rule in rules
    }
    assert who == {"fleet": ["client"], "control": ["run"], "metrics": ["test"]}
    client = found(rendered(), "NetworkPolicy", "fl-client")["spec"]
    assert client["ingress"] == []
    assert [rule["ports"][0]["port"] for rule in client["egress"]] == [53, "fleet"]


def test_the_certificate_carries_every_name_that_the_server_is_reached_by() -> None:
    manifests = rendered({"server": {"names": ["more.example.org"]}, "ingress": {"enabled": True, "host": "fl.org"}})
    server = found(manifests, "StatefulSet", "fl-server")["spec"]["template"]["spec"]["containers"][0]
    names = next(each["value"] for each in server["env"] if each["name"] == "FL_SERVER_NAMES").split(",")
    assert {"fl-server", "fl-server.garden.svc.cluster.local", "fl-control", "fl.org", "more.example.org"} <= set(names)


def test_clients_of_a_server_elsewhere_bring_no_server() -> None:
    assert {each["kind"] for each in rendered(ELSEWHERE)} == {"Deployment", "NetworkPolicy"}


def test_the_settings_of_the_values_are_settings_of_a_run() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert parse(values["settings"]).task == "digits"


def test_every_value_has_a_comment_and_a_place_in_the_schema() -> None:
    def leaves(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        for name, value in values.items():
            assert name in schema["properties"], f"{path}{name} is not in values.schema.json"
            inner = schema["properties"][name]
            if isinstance(value, dict) and "properties" in inner and "description" not in inner:
                leaves(value, inner, f"{path}{name}.")
            else:
                assert inner.get("description"), f"{path}{name} has no comment"
                assert f"# -- {inner['description']}" in text

    text = (CHART / "values.yaml").read_text()
    leaves(yaml.safe_load(text), json.loads((CHART / "values.schema.json").read_text()), "")


def test_the_charts_readme_is_made_from_its_values() -> None:
    spec = importlib.util.spec_from_file_location("make_readme", ROOT / "deploy" / "helm" / "make_readme.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (CHART / "README.md").read_text() == module.readme(), "run: python deploy/helm/make_readme.py"


def test_the_chart_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version[1]

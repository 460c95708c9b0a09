"""The chart without a cluster: it lints, renders to what current Kubernetes takes, and refuses wrong values."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from fl_cli import variables
from fl_common.settings.schema import Settings, parse
from tests.support.helm import CHART, ELSEWHERE, EVERYTHING, OPERATORS, ROOT, found, helm, rendered

MAJOR, MINOR = map(int, kubernetes_validate.latest_version().split(".")[:2])
CURRENT = [f"{MAJOR}.{minor}" for minor in range(MINOR - 2, MINOR + 1)]  # the three that Kubernetes supports
ROLES = {"server", "client", "run"}  # containers that are commands of ours
FOREIGN = {"Certificate", "ServiceMonitor"}


def against_schema(manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        for version in CURRENT:
            kubernetes_validate.validate(manifest, version, strict=True)


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
def test_every_manifest_is_one_that_the_three_newest_kubernetes_take(values: dict[str, Any]) -> None:
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
        ({"clients": {"replicas": "three"}}, "clients.replicas: Invalid type. Expected: [integer,null], given: string"),
        ({"clients": {"kind": "DaemonSet"}}, 'must be one of the following: "Deployment", "StatefulSet"'),
        ({"clinets": {}}, "Additional property clinets is not allowed"),
        ({"settings": {"rounds": [1]}}, "settings.rounds"),
        ({"settings": {"round": 77}}, "Additional property round is not allowed"),
        ({"run": {"settings": {"round": 77}}}, "Additional property round is not allowed"),
        ({"settings": {"rounds": 0}}, "settings.rounds: Must be greater than or equal to 1"),
        ({"settings": {"rounds": "many"}}, "settings.rounds: Does not match pattern"),
        ({"settings": {"partitioning": "idd"}}, "settings.partitioning must be one of the following"),
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


def made(name: str) -> Any:
    """Return a module of deploy/helm, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / "helm" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_charts_schema_knows_every_setting() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema == made("make_schema").schema(), "run: python deploy/helm/make_schema.py"


def extremes() -> list[dict[str, Any]]:
    """Return objects of settings that are as large, as small and as fine as the settings admit."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    for name, described in Settings.model_json_schema()["properties"].items():
        if described["type"] == "integer":
            low[name] = described.get("minimum", 0)
            high[name] = described.get("exclusiveMaximum", described.get("maximum", 2_000_000_001) + 1) - 1
        elif described["type"] == "number":
            low[name] = described.get("minimum", 1e-7)
            high[name] = described.get("maximum", described.get("exclusiveMaximum", 1.7e300) * 0.99)
        elif described["type"] == "boolean":
            low[name], high[name] = False, True
        else:
            low[name] = high[name] = described["default"]
    return [low, high]


@pytest.mark.parametrize("given", extremes(), ids=["low", "high"])
def test_every_setting_reaches_the_server_as_it_was_written(given: dict[str, Any]) -> None:
    manifests = rendered({"settings": given, "run": {"enabled": True, "settings": {"rounds": 2_000_000}}})
    server = found(manifests, "StatefulSet", "fl-server")["spec"]["template"]["spec"]["containers"][0]
    job = found(manifests, "Job", "fl-run-1")["spec"]["template"]["spec"]["containers"][0]
    for container, wanted in ((server, given), (job, {**given, "rounds": 2_000_000})):
        environment = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        for name, value in wanted.items():
            text = environment[f"FL_{name.upper()}"]
            assert (str(value) if isinstance(value, int | str) else float(text)) == (
                {"true": "True", "false": "False"}.get(text, text) if isinstance(value, int | str) else value
            ), name


def test_every_variable_that_the_chart_sets_is_one_that_something_reads() -> None:
    names = {
        each["name"]
        for pod in pods(rendered({**EVERYTHING, "tls": {"existingSecret": "own"}}))
        for container in [*pod.get("initContainers", []), *pod["containers"]]
        for each in container.get("env", [])
    }
    variables.check(dict.fromkeys(names, ""))


def test_what_the_image_knows_by_itself_is_not_asked_of_an_older_one() -> None:
    def given(values: dict[str, Any]) -> list[str]:
        variables = [each for pod in pods(rendered(values)) for box in pod["containers"] for each in box.get("env", [])]
        return [each["value"] for each in variables if each["name"] == "FL_FORGET_AFTER"]

    assert given({}) == []
    assert given({"server": {"forgetAfter": "12h"}}) == ["12h"]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert compose["services"]["server"]["environment"]["FL_FORGET_AFTER"] is None  # only where the env file has it
    assert "FL_FORGET_AFTER=30d" in (ROOT / "deploy" / "docker" / "Dockerfile").read_text()


def test_large_numbers_of_the_chart_itself_are_written_in_digits() -> None:
    manifests = rendered({"run": {"enabled": True, "ttlSecondsAfterFinished": 12345678}})
    assert found(manifests, "Job", "fl-run-1")["spec"]["ttlSecondsAfterFinished"] == 12345678


def test_the_number_of_clients_is_left_alone_where_it_is_null() -> None:
    assert found(rendered({"clients": {"replicas": 0}}), "Deployment", "fl-client")["spec"]["replicas"] == 0
    alone = {"clients": {"replicas": None}, "podDisruptionBudget": {"enabled": True}}
    assert "replicas" not in found(rendered(alone), "Deployment", "fl-client")["spec"]
    assert "replicas" not in found(rendered({"autoscaling": {"enabled": True}}), "Deployment", "fl-client")["spec"]


def test_resources_and_security_of_every_container_are_values() -> None:
    resources = {"requests": {"cpu": "10m"}, "limits": {"cpu": "1", "memory": "3Gi"}}
    values = {
        **{each: {"resources": resources} for each in ("clients", "test")},
        "run": {"enabled": True, "resources": resources},
        "server": {"resources": resources, "publish": {"resources": resources}},
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None, "supplementalGroups": [7]},
        "securityContext": {"runAsNonRoot": True},
    }
    found_pods = pods(rendered(values))
    assert len(found_pods) == 4
    for pod in found_pods:
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
            "supplementalGroups": [7],
        }
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["resources"]["limits"] == {"cpu": "1", "memory": "3Gi"}
            assert container["securityContext"]["runAsNonRoot"] is True


def test_a_release_reaches_its_own_services_through_no_proxy() -> None:
    manifests = rendered({"run": {"enabled": True}})
    services = {each["metadata"]["name"] for each in manifests if each["kind"] == "Service"}
    asked = {"fl-server", "fl-control"}
    assert asked <= services
    for container in (each for pod in pods(manifests) for each in pod["containers"] if each["name"] in ROLES):
        own = next(each["value"] for each in container["env"] if each["name"] == "FL_NO_PROXY").split(",")
        assert {name for name in own if name.partition(".")[0] in asked} == set(own)
        assert asked | {"fl-server.garden.svc.cluster.local", "fl-control.garden.svc"} <= set(own)
    for script in ("publish.py", "check_fleet.py"):  # which are no commands of ours
        text = (CHART / "files" / script).read_text()
        assert "ProxyHandler({})" in text
        assert "urlopen" not in text


def test_a_client_is_ready_within_two_seconds_of_joining_and_of_losing_its_server_no_longer() -> None:
    client = found(rendered(), "Deployment", "fl-client")["spec"]["template"]["spec"]["containers"][0]
    ready, starting = client["readinessProbe"], client["startupProbe"]
    assert (ready["exec"]["command"], ready["periodSeconds"], ready["failureThreshold"]) == (["client-ready"], 2, 1)
    assert starting["periodSeconds"] == 1  # nothing is asked whether it is ready before that


def test_a_rollback_heals_a_server_that_never_became_ready() -> None:
    assert found(rendered(), "StatefulSet", "fl-server")["spec"]["podManagementPolicy"] == "Parallel"


def test_a_new_client_is_not_killed_while_it_waits_for_a_server() -> None:
    client = found(rendered(), "Deployment", "fl-client")["spec"]["template"]["spec"]["containers"][0]
    assert client["startupProbe"]["exec"]["command"] == ["client-ready", "alive"]
    assert client["livenessProbe"]["exec"]["command"] == ["fl", "health", "client", "--alive"]


def test_every_pod_waits_for_the_keys_of_the_secret_that_it_mounts() -> None:
    for pod in pods(rendered({"run": {"enabled": True}})):
        for volume in pod.get("volumes", []):
            assert "secret" not in volume or volume["secret"]["items"]


def test_the_charts_readme_is_made_from_its_values() -> None:
    module = made("make_readme")
    assert (CHART / "README.md").read_text() == module.readme(), "run: python deploy/helm/make_readme.py"


def test_the_chart_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version[1]

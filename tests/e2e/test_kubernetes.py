"""The chart on a real Kubernetes node: one story, told in the order of its tests. Each starts where the last ended."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, build, cluster, missing, wait

pytestmark = [pytest.mark.kubernetes, pytest.mark.skipif(bool(missing()), reason=missing() or "there is a cluster")]

SERVER, CLIENT = "parterre-server:0.1.0", "parterre-client:0.1.0"
LONG = {"rounds": 40, "local_epochs": 20, "deadline_seconds": 60, "min_clients": 2, "wait_seconds": 300}
VALUES: dict[str, Any] = {
    "image": {"pullPolicy": "Never"},
    "settings": {"task": "digits", "rounds": 12, "local_epochs": 10, "min_clients": 2, "wait_seconds": 300},
    "clients": {"replicas": 2, "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}},
    "server": {"resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}},
}


@pytest.fixture(scope="module")
def kube() -> Iterator[Cluster]:
    build("server", SERVER)
    build("client", CLIENT)
    with cluster(SERVER, CLIENT) as up:
        up.install("install", VALUES)
        yield up


def submitted(kube: Cluster, name: str, **settings: Any) -> str:
    """Submit a run by the chart's Job, and return its name in the store once it has a committed round."""
    before = set(kube.runs())
    kube.install("upgrade", {**VALUES, "run": {"enabled": True, "name": name, "settings": {**LONG, **settings}}})
    run = wait(f"run {name}", lambda: next(iter(set(kube.runs()) - before), ""))
    wait("its first round", lambda: rounds(kube, run))
    return str(run)


def rounds(kube: Cluster, run: str) -> list[int]:
    return [event["round"] for event in kube.events(run) if event["event"] == "round"]


def finished(kube: Cluster, run: str) -> dict[str, Any]:
    """Wait for a run's end; return its last event. Every round is there once and in order."""
    events = wait(
        f"the end of {run}",
        lambda: [each for each in kube.events(run) if each["event"] in ("finished", "failed")],
        seconds=420,
    )
    assert events[-1]["event"] == "finished", events[-1]
    done = rounds(kube, run)
    assert done == list(range(1, len(done) + 1))
    return dict(events[-1])


def test_installing_alone_trains_a_model(kube: Cluster) -> None:
    wait("two clients", lambda: len(kube.running("client")) == 2)
    run = wait("the first run", lambda: next(iter(kube.runs()), ""))
    assert finished(kube, run)["accuracy"] >= 0.9


def test_helm_test_counts_the_connected_clients(kube: Cluster) -> None:
    assert "Succeeded" in kube.helm("test", "fl", "-n", "garden", "--timeout", "200s")


def test_pods_run_as_nobody_in_particular_and_hold_no_kubernetes_token(kube: Cluster) -> None:
    client = kube.running("client")[0]
    for pod in ("fl-server-0", client):
        assert kube.kubectl("-n", "garden", "exec", pod, "--", "id", "-u").strip() == "10001"
        assert "Read-only file system" in _error(kube, pod, "touch", "/usr/local/here")
        assert "No such file" in _error(kube, pod, "ls", "/var/run/secrets/kubernetes.io/serviceaccount")


def test_every_client_enrolled_with_a_key_of_its_own(kube: Cluster) -> None:
    lines = kube.kubectl("-n", "garden", "exec", "fl-server-0", "-c", "server", "--", "fl", "clients", "--json")
    listed = [json.loads(line) for line in lines.splitlines()]
    assert len({each["client"] for each in listed}) >= 2
    assert not any(each["rejected"] for each in listed)


def test_clients_scale_up_and_down_during_a_run(kube: Cluster) -> None:
    run = submitted(kube, "scaling", min_clients=1)
    kube.kubectl("-n", "garden", "scale", "deployment/fl-client", "--replicas=4")
    wait("four clients", lambda: len(kube.running("client")) == 4)
    wait("a round of four", lambda: any(e.get("cohort") == 4 for e in kube.events(run)))
    kube.kubectl("-n", "garden", "scale", "deployment/fl-client", "--replicas=1")
    finished(kube, run)
    kube.kubectl("-n", "garden", "scale", "deployment/fl-client", "--replicas=2")
    wait("two clients again", lambda: len(kube.running("client")) == 2)


def test_a_client_that_is_killed_in_a_round_is_replaced_and_the_run_ends(kube: Cluster) -> None:
    run = submitted(kube, "client-killed")
    kube.kubectl("-n", "garden", "delete", "pod", kube.running("client")[0], "--grace-period=0", "--force")
    finished(kube, run)


def test_a_run_goes_on_when_the_servers_pod_is_killed(kube: Cluster) -> None:
    run = submitted(kube, "server-killed")
    before = rounds(kube, run)
    kube.kubectl("-n", "garden", "delete", "pod", "fl-server-0", "--grace-period=0", "--force")
    wait("the server's pod", lambda: kube.running("server"))
    finished(kube, run)
    assert rounds(kube, run)[: len(before)] == before


def test_a_rolling_update_of_the_clients_loses_no_round(kube: Cluster) -> None:
    run = submitted(kube, "rolling")
    kube.kubectl("-n", "garden", "rollout", "restart", "deployment/fl-client")
    kube.kubectl("-n", "garden", "rollout", "status", "deployment/fl-client", "--timeout=200s", timeout=220)
    finished(kube, run)
    assert not [event for event in kube.events(run) if event["event"] == "repeat"]


def test_a_bad_image_is_a_stuck_rollout_that_harms_no_run_and_is_rolled_back(kube: Cluster) -> None:
    run = submitted(kube, "bad-image")
    good = kube.helm("history", "fl", "-n", "garden", "-o", "json")
    kube.install("upgrade", {**VALUES, "image": {"pullPolicy": "Never", "clientTag": "no-such"}})
    stuck = lambda: [r for pod in kube.get("pods")["items"] for r in waiting(pod) if r.startswith("ErrImage")]  # noqa: E731
    wait("the stuck pod", stuck)
    assert kube.running("client"), "the old clients stay"
    finished(kube, run)
    kube.helm("rollback", "fl", str(json.loads(good)[-1]["revision"]), "-n", "garden")
    kube.kubectl("-n", "garden", "rollout", "status", "deployment/fl-client", "--timeout=200s", timeout=220)


def test_uninstalling_leaves_the_volume_and_nothing_else(kube: Cluster) -> None:
    kube.helm("uninstall", "fl", "-n", "garden")
    wait("the pods to go", lambda: not kube.get("pods")["items"])
    kinds = "all,secrets,configmaps,networkpolicies,serviceaccounts,roles,rolebindings"
    left = kube.get(kinds, "-l", "app.kubernetes.io/instance=fl")["items"]
    assert [f"{each['kind']}/{each['metadata']['name']}" for each in left] == []
    assert [each["metadata"]["name"] for each in kube.get("pvc")["items"]] == ["store-fl-server-0"]


def waiting(pod: dict[str, Any]) -> list[str]:
    """Return why a pod's containers wait."""
    return [
        each["state"]["waiting"]["reason"]
        for each in pod.get("status", {}).get("containerStatuses", [])
        if "waiting" in each["state"]
    ]


def _error(kube: Cluster, pod: str, *command: str) -> str:
    try:
        kube.kubectl("-n", "garden", "exec", pod, "--", *command)
    except RuntimeError as error:
        return str(error)
    return ""

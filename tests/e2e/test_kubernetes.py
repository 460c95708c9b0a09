"""The chart on a real Kubernetes node: a day of its operator. Each test starts where the last ended, in this order."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster import Cluster, build, cluster, missing, wait
from tests.support.stack import GREEDY, fill

pytestmark = [pytest.mark.kubernetes, pytest.mark.skipif(bool(missing()), reason=missing() or "there is a cluster")]

SERVER, CLIENT = "parterre-server:0.1.0", "parterre-client:0.1.0"
LONG = {"rounds": 40, "local_epochs": 20, "deadline_seconds": 60, "min_clients": 2, "wait_seconds": 300}
LIMIT = 3  # starts in a row without a round; by default 5, with six restarts in the story on Compose
VALUES: dict[str, Any] = {
    "image": {"pullPolicy": "Never"},
    "settings": {"task": "digits", "rounds": 12, "local_epochs": 10, "min_clients": 2, "wait_seconds": 300},
    "clients": {"replicas": 2, "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}},
    "server": {
        "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"memory": "1536Mi"}},
        "extraEnv": [{"name": "FL_MAX_RESTARTS", "value": str(LIMIT)}],
    },
}
CLAIM, DISK = "store-fl-server-0", "160m"


@pytest.fixture(scope="module")
def kube() -> Iterator[Cluster]:
    build("server", SERVER)
    build("client", CLIENT)
    with cluster(SERVER, CLIENT) as up:
        up.disk = up.make_disk("store", CLAIM, DISK)
        up.install("install", {**VALUES, "clients": {**VALUES["clients"], "replicas": 1}})
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


def test_a_first_run_waits_for_late_clients_by_name_and_trains_a_model(kube: Cluster) -> None:
    wait("the word", lambda: "waiting for 2 clients; 1 is there" in kube.fl("runs", check=False))
    assert "waiting for 2 clients; 1 is there" in kube.fl("health", "server")
    kube.install("upgrade", VALUES)
    assert finished(kube, "digits")["accuracy"] >= 0.9
    assert len(kube.running("client")) == 2


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


def test_a_wrong_value_is_refused_before_anything_changes(kube: Cluster) -> None:
    with pytest.raises(RuntimeError, match="round"):
        kube.install("upgrade", {**VALUES, "settings": {**VALUES["settings"], "round": 77}})
    assert kube.running("server")


def test_a_server_that_crash_loops_is_healed_by_a_rollback(kube: Cluster) -> None:
    good = json.loads(kube.helm("history", "fl", "-n", "garden", "-o", "json"))[-1]["revision"]
    wrong = [{"name": "FL_MAX_RESTARTS", "value": "-1"}]
    kube.install("upgrade", {**VALUES, "server": {**VALUES["server"], "extraEnv": wrong}})
    wait("the crash loop", lambda: "CrashLoopBackOff" in waiting(kube.get("pods", "fl-server-0")))
    assert "-1" in kube.kubectl("-n", "garden", "logs", "fl-server-0", "-c", "server")
    kube.helm("rollback", "fl", str(good), "-n", "garden")
    wait("the server", lambda: kube.running("server"))
    wait("its clients", lambda: len(kube.running("client")) == 2)


def test_a_run_that_waits_outlasts_more_restarts_of_its_server_than_falls_would_be_forgiven(kube: Cluster) -> None:
    job = {"enabled": True, "name": "waits", "settings": {"rounds": 1, "min_clients": 3, "wait_seconds": 0}}
    kube.install("upgrade", {**VALUES, "run": job})
    for number in range(1, LIMIT + 2):
        wait("the wait", lambda: [e for e in kube.events("waits")[-1:] if e["event"] in ("started", "waiting")])
        kube.kubectl("-n", "garden", "delete", "pod", "fl-server-0")
        wait(f"start {number}", lambda count=number: happened(kube, "waits", "restarted") == count)
    assert not happened(kube, "waits", "failed")
    kube.kubectl("-n", "garden", "scale", "deployment/fl-client", "--replicas=3")
    finished(kube, "waits")


def happened(kube: Cluster, run: str, kind: str) -> int:
    """Return how often an event of a kind stands in a run."""
    return sum(event["event"] == kind for event in kube.events(run))


def test_a_run_that_is_killed_for_memory_is_named_as_such(kube: Cluster) -> None:
    write = ["exec", "-i", "fl-server-0", "-c", "server", "--", "sh", "-c", "cat > /tmp/greedy.py"]
    kube.kubectl("-n", "garden", *write, text=GREEDY)
    submit = "nohup fl run --server fl-control:9093 --task /tmp/greedy.py --name greedy >/tmp/greedy.log 2>&1 &"
    kube.kubectl("-n", "garden", "exec", "fl-server-0", "-c", "server", "--", "sh", "-c", submit)
    wait("the kernel's kill", lambda: happened(kube, "greedy", "restarted"))
    (event, *_) = (each for each in kube.events("greedy") if each["event"] == "restarted")
    assert "out of memory: limit 1536 MiB" in event["reason"]
    wait("the end of its tries", lambda: happened(kube, "greedy", "failed"))
    assert kube.running("server")


def test_a_full_disk_is_waited_out_and_no_warning_comes_twice(kube: Cluster) -> None:
    run = submitted(kube, "full")
    filler = fill(kube.disk)
    try:
        further = f"round {len(rounds(kube, run)) + 2}: trained"  # while the round before it is written
        wait("the round that is not written", lambda: any(further in log(kube, pod) for pod in kube.running("client")))
        warnings = wait("the warning", lambda: [e for e in log(kube).splitlines() if "the disk is full" in e])
    finally:
        filler.unlink()
    finished(kube, run)
    assert happened(kube, run, "paused") or happened(
        kube, run, "restarted"
    )  # who asks for room first: run or SuperLink
    assert len(warnings) == len(set(warnings))


def log(kube: Cluster, pod: str = "fl-server-0") -> str:
    """Return what a pod's own container has said."""
    container = "server" if pod == "fl-server-0" else "client"
    return kube.kubectl("-n", "garden", "logs", pod, "-c", container)


def test_a_revoked_client_stays_shut_out_and_is_not_started_again_for_ever(kube: Cluster) -> None:
    listed = [json.loads(line) for line in kube.fl("clients", "--json").splitlines()]
    kube.fl("clients", "revoke", max(listed, key=lambda each: each["seen"] or 0)["client"])
    wait("it to be out", lambda: len(kube.running("client")) == 1)
    pods = kube.get("pods", "-l", "app.kubernetes.io/component=client")["items"]
    (out,) = (pod for pod in pods if pod["metadata"]["name"] not in kube.running("client"))
    assert "looks again" in kube.kubectl("-n", "garden", "logs", out["metadata"]["name"])
    assert out["status"]["containerStatuses"][0]["restartCount"] == 0
    kube.kubectl("-n", "garden", "delete", "pod", out["metadata"]["name"])
    wait("another in its place", lambda: len(kube.running("client")) == 2)


def test_uninstalling_leaves_the_volume_and_nothing_else(kube: Cluster) -> None:
    kube.helm("uninstall", "fl", "-n", "garden")
    wait("the pods to go", lambda: not kube.get("pods")["items"])
    kinds = "all,secrets,configmaps,networkpolicies,serviceaccounts,roles,rolebindings"
    left = kube.get(kinds, "-l", "app.kubernetes.io/instance=fl")["items"]
    assert [f"{each['kind']}/{each['metadata']['name']}" for each in left] == []
    assert [each["metadata"]["name"] for each in kube.get("pvc")["items"]] == [CLAIM]


def test_installed_again_over_the_kept_volume_it_has_its_runs_and_trains_on(kube: Cluster) -> None:
    kube.install("install", VALUES)
    wait("the server", lambda: kube.running("server"))
    assert {"digits", "waits", "full"} <= set(kube.runs())
    before = rounds(kube, "digits")
    finished(kube, submitted(kube, "reinstalled", rounds=2, local_epochs=1))
    assert rounds(kube, "digits") == before  # the first run was not begun again


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

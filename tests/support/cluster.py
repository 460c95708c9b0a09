"""A real one-node Kubernetes for the tests: the testbed's, in a network namespace of its own, with local images."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.helm import CHART, ROOT, TESTBED, find_helm

HOME = Path(os.environ.get("TESTBED_HOME", Path.home() / ".cache" / "testbed"))
NETNS = "/run/netns/testkube"
VOLUMES = 6
UID = 10001


def missing() -> str:
    """Say why there can be no cluster here; "" where there can."""
    if not (TESTBED / "kube-up").exists():
        return "needs the testbed's one-node Kubernetes (../shared/testbed), which is not here"
    if os.geteuid() != 0:
        return "the testbed's Kubernetes starts as root only"
    return ""


def build(target: str, tag: str) -> None:
    """Build an image, of which Docker keeps the layers that did not change."""
    _testbed("docker-up", timeout=580)
    dockerfile = str(ROOT / "deploy" / "docker" / "Dockerfile")
    _run(["docker", "build", "-q", "-f", dockerfile, "--target", target, "-t", tag, str(ROOT)], None, 1500)


@contextmanager
def cluster(*images: str) -> Iterator["Cluster"]:
    """Start a cluster with these local images, and take it down."""
    _testbed("kube-down")
    try:
        _testbed("kube-up", *images, timeout=900)
        up = Cluster()
        for number in range(VOLUMES):
            up.make_volume(f"volume-{number}")
        yield up
    finally:
        _testbed("kube-down")


class Cluster:
    """kubectl and helm against it. `disk`: the folder of the server's volume, where a test made it."""

    disk: Path

    def kubectl(self, *arguments: str, text: str | None = None, timeout: float = 120, check: bool = True) -> str:
        """Run kubectl and return what it printed."""
        return _run([str(TESTBED / "kube-ctl"), *arguments], text, timeout, check=check)

    def helm(self, *arguments: str, values: dict[str, Any] | None = None, timeout: float = 300) -> str:
        """Run helm, `values` as a file of values, and return what it printed."""
        inside = ["nsenter", f"--net={NETNS}", find_helm(), "--kubeconfig", str(HOME / "cluster" / "admin.conf")]
        more = ["--values", "-"] if values is not None else []
        return _run([*inside, *arguments, *more], yaml.safe_dump(values) if values is not None else None, timeout)

    def install(self, verb: str, values: dict[str, Any], *, release: str = "fl", namespace: str = "garden") -> str:
        """Install or upgrade the chart."""
        return self.helm(verb, release, str(CHART), "-n", namespace, "--create-namespace", values=values)

    def get(self, kind: str, *arguments: str, namespace: str = "garden") -> Any:
        """Return resources as parsed JSON."""
        return json.loads(self.kubectl("-n", namespace, "get", kind, *arguments, "-o", "json"))

    def make_disk(self, name: str, claim: str, size: str, *, namespace: str = "garden") -> Path:
        """Make a volume for one claim that is a disk of its own, of a size such as "160m"; return where it is."""
        folder = HOME / "cluster" / "volumes" / name
        folder.mkdir(parents=True)
        _run(["mount", "-t", "tmpfs", "-o", f"size={size},uid={UID},gid={UID}", "tmpfs", str(folder)], None, 60)
        self.make_volume(name, claimRef={"namespace": namespace, "name": claim})
        return folder

    def make_volume(self, name: str, **spec: Any) -> None:
        """Make a volume, without `spec` for a claim of any class-less kind: this cluster has no provisioner."""
        folder = HOME / "cluster" / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, UID, UID)
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "5Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder)},
                **spec,
            },
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(volume))

    def running(self, component: str, *, namespace: str = "garden") -> list[str]:
        """Return the names of a component's pods that are ready and not leaving."""
        pods = self.get("pods", "-l", f"app.kubernetes.io/component={component}", namespace=namespace)["items"]
        return sorted(pod["metadata"]["name"] for pod in pods if _ready(pod))

    def events(self, run: str, *, namespace: str = "garden") -> list[dict[str, Any]]:
        """Return the events of a run in the server's store; [] where there is none yet."""
        read = ["exec", "fl-server-0", "-c", "server", "--", "cat", f"/store/{run}/events.jsonl"]
        lines = self.kubectl("-n", namespace, *read, check=False).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def fl(self, *arguments: str, check: bool = True, namespace: str = "garden") -> str:
        """Run a command of `fl` in the server's container, and return what it printed."""
        command = ["exec", "fl-server-0", "-c", "server", "--", "env", "FL_CONTROL=fl-control:9093", "fl"]
        return self.kubectl("-n", namespace, *command, *arguments, check=check)

    def runs(self, *, namespace: str = "garden") -> list[str]:
        """Return the names of the runs in the server's store, oldest first."""
        found = self.kubectl("-n", namespace, "exec", "fl-server-0", "-c", "server", "--", "ls", "/store", check=False)
        return sorted(found.split())


def wait(what: str, condition: Callable[[], Any], *, seconds: float = 420) -> Any:
    """Return the condition's first true value. Fails the test where it does not come."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if value := condition():
            return value
        time.sleep(1)
    return pytest.fail(f"waited {seconds:g} s for {what}")


def _ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def _testbed(script: str, *arguments: str, timeout: float = 120) -> None:
    _run([str(TESTBED / script), *arguments], None, timeout)


def _run(command: list[str], text: str | None, timeout: float, *, check: bool = True) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise RuntimeError(
            f"{' '.join(command[-6:])} exited {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout

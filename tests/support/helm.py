"""Where helm is, and what the chart renders to. Helm is on the path, or the testbed's scripts bring it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "parterre"
TESTBED = Path(os.environ.get("TESTBED", ROOT.parent / "shared" / "testbed"))

# Every optional feature at once, as two installations: with a server of its own, and clients of a server elsewhere.
EVERYTHING = {
    "run": {"enabled": True, "settings": {"rounds": 3}},
    "clients": {
        "kind": "StatefulSet",
        "gpus": 1,
        "task": "my_task",
        "metricsPort": 9101,
        "data": {"path": "/data/mine.csv", "label": "species", "storage": "1Gi", "storageClass": "fast"},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "extraEnv": [{"name": "A", "value": "b"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
    },
    "server": {
        "storageClass": "fast",
        "names": ["fl.example.org", "192.0.2.1"],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "extraEnv": [{"name": "A", "value": "b"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
    },
    "image": {"pullSecrets": ["registry"], "registry": "registry.example.org/team/", "clientTag": "2"},
    "tls": {"existingSecret": "own-certificate"},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "ingress": {"enabled": True, "host": "fl.example.org"},
    "networkPolicy": {
        "fleetFrom": [{"namespaceSelector": {}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
    "podDisruptionBudget": {"enabled": True, "minAvailable": 2},
    "autoscaling": {"enabled": True},
    "serviceAccount": {"annotations": {"a": "b"}},
}
ELSEWHERE = {"clients": {"server": "fl.example.org:443", "enrollSecret": "token"}}
OPERATORS = {  # kinds that no Kubernetes release has a schema for
    "tls": {"certManager": {"enabled": True, "issuerRef": {"name": "ca"}}},
    "metrics": {"serviceMonitor": {"enabled": True}},
}


def find_helm() -> str:
    """Return helm's path; skip the test, with the reason, where there is none."""
    if found := shutil.which("helm"):
        return found
    if not (TESTBED / "helm-up").exists():
        pytest.skip("helm 3 is not on the path, and there is no testbed that brings it")
    done = subprocess.run([TESTBED / "helm-up"], capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.split()[-1]


def helm(*arguments: str | Path, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm; `values` go to its standard input as a file of values."""
    more = ["--values", "-"] if values is not None else []
    return subprocess.run(
        [find_helm(), *map(str, arguments), *more],
        input=yaml.safe_dump(values) if values is not None else None,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def rendered(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the manifests of a release called `fl` in namespace `garden`."""
    done = helm("template", "fl", CHART, "--namespace", "garden", values=values or {})
    if done.returncode:
        raise ValueError(done.stderr)
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def found(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one manifest of a kind and a name."""
    return next(each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name)

"""The RayCluster of deploy/kuberay: its pods are valid, and its Ray is the one that the pinned Flower asks for."""

import re
from importlib.metadata import requires
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

CLUSTER = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "kuberay" / "raycluster.yaml").read_text())
SPEC = CLUSTER["spec"]
GROUPS = [SPEC["headGroupSpec"], *SPEC["workerGroupSpecs"]]
OF_A_GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def test_it_is_a_raycluster_with_what_its_groups_need():
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")
    assert SPEC.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert SPEC["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in SPEC["workerGroupSpecs"]:
        assert group.keys() == OF_A_GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert all(isinstance(value, str) for group in GROUPS for value in group["rayStartParams"].values())


@pytest.mark.parametrize("group", GROUPS, ids=["head", "workers"])
def test_its_pods_are_valid(group):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, **group["template"]}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_its_ray_is_flowers():
    pinned = {found[1] for line in requires("flwr") or [] if (found := re.match(r"ray==([\d.]+)", line))}
    assert pinned == {SPEC["rayVersion"]}

"""What the images are made from, without an engine: the locks, and two linters, each of which must catch a mistake."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
IMAGE = {
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "python_version": "3.11",
    "python_full_version": "3.11.9",
}
LEFT_OUT = {
    "client": {"matplotlib", "numba", "sqlalchemy", "alembic", "scikit-learn", "scipy", "seaborn", "uv", "libclang"},
    "server": {"scikit-learn", "scipy", "seaborn", "uv", "libclang"},
}


def pins(path: Path) -> dict[str, str]:
    found = (Requirement(line) for line in path.read_text().splitlines() if line.strip())
    return {pin.name: str(pin.specifier) for pin in found if pin.marker is None or pin.marker.evaluate(IMAGE)}


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: there is no wheel for this machine")
    return found


def run(*command: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)


@pytest.mark.parametrize("role", LEFT_OUT)
def test_an_image_has_the_versions_of_the_lock_and_not_what_its_role_does_not_need(role):
    everything, image = pins(ROOT / "requirements.lock"), pins(DOCKER / f"{role}.lock")
    assert image.items() <= everything.items()
    assert not LEFT_OUT[role] & image.keys()
    assert not {"pytest", "mypy", "ruff", "docker", "hypothesis"} & image.keys()


def test_a_server_has_all_that_a_client_has():
    assert pins(DOCKER / "client.lock").items() <= pins(DOCKER / "server.lock").items()


def test_what_the_project_depends_on_is_in_a_servers_image_or_left_out_by_name():
    asked = (Requirement(line) for line in re.findall(r'^  "(.+?)"', project_dependencies(), re.MULTILINE))
    names = {each.name for each in asked if each.marker is None or each.marker.evaluate(IMAGE)}
    assert names - pins(DOCKER / "server.lock").keys() <= LEFT_OUT["server"]


def project_dependencies() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    return text[text.index("\ndependencies = [") : text.index("[project.optional-dependencies]")]


def test_hadolint_has_nothing_to_say_about_the_dockerfile():
    done = run(tool("hadolint"), str(DOCKER / "Dockerfile"))
    assert done.returncode == 0, done.stdout


def test_hadolint_catches_a_mistake():
    done = run(tool("hadolint"), "-", text="FROM python:latest\nRUN cd /tmp && sudo apt-get install curl\n")
    assert done.returncode == 1
    assert {"DL3003", "DL3004", "DL3007"} <= set(re.findall(r"DL\d+", done.stdout))


def scripts() -> list[str]:
    """Return the shell scripts of the repository: what git tracks and begins with a shell's name."""
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    first = ((name, (ROOT / name).open("rb").readline()) for name in files if (ROOT / name).is_file())
    return [name for name, line in first if re.match(rb"#!.*\b(sh|bash)\b", line)]


def test_shellcheck_has_nothing_to_say_about_the_scripts():
    assert {".ci/run", "deploy/docker/slim"} <= set(scripts())
    done = run(tool("shellcheck"), *scripts())
    assert done.returncode == 0, done.stdout


def test_shellcheck_catches_a_mistake():
    done = run(tool("shellcheck"), "-", text='#!/bin/sh\nrm -rf $1/*\ncd "$2"\n')
    assert done.returncode == 1
    assert {"SC2086", "SC2164"} <= set(re.findall(r"SC\d+", done.stdout))


def test_the_dockerfile_asks_no_registry_for_its_syntax():
    assert not re.search(r"^#\s*syntax\s*=", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("question", "file", "age", "answer"),
    [
        ([], "joined", 0, 0),
        ([], "joined", 70, 1),
        ([], "pulse.json", 0, 1),
        (["alive"], "pulse.json", 70, 0),
        (["alive"], "pulse.json", 190, 1),
        (["alive"], "joined", 0, 1),
    ],
)
def test_a_clients_probe_asks_for_the_age_of_a_file(tmp_path, question, file, age, answer):
    (tmp_path / file).touch()
    then = time.time() - age
    os.utime(tmp_path / file, (then, then))
    for place in ({"FL_STATE": str(tmp_path)}, {"FL_STATE": "", "FL_PULSE": str(tmp_path)}):
        environment = {"PATH": os.environ["PATH"], **place}
        done = subprocess.run([DOCKER / "client-ready", *question], env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (answer, b"")


def composed() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return services


def test_a_stack_of_compose_reaches_its_own_services_through_no_proxy():
    for name, service in composed().items():
        if "network_mode" not in service:
            assert service["environment"]["FL_NO_PROXY"] == "server,control", name


def test_replicas_of_a_stack_of_compose_share_a_volume_of_identities_and_sites_do_not():
    client = composed()["client"]
    assert "state:/state" in client["volumes"]
    assert client["environment"]["FL_STATES"].startswith("/state/")
    assert client["environment"]["FL_STATE"] == ""  # the image's own would be one identity for all
    assert client["environment"]["FL_PULSE"].startswith("/tmp/")
    overlay = yaml.safe_load((ROOT / "compose.data.yaml").read_text())["services"]
    states = [
        each for name, site in overlay.items() if name != "client" for each in site["volumes"] if ":/state" in each
    ]
    assert len(set(states)) == 3

"""What the images are made from, without an engine: the locks, and two linters, each of which must catch a mistake."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
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
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


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

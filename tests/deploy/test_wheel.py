"""The wheel as people install it: into an empty environment, far from the checkout, where everything is there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".*", "build", "runs", "*.egg-info", "__pycache__")
UV = Path(sys.executable).with_name("uv")


def ran(*command: str | Path, cwd: Path = ROOT, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FL_", "PYTHON"))}
    done = subprocess.run([*command], cwd=cwd, env=environment | more, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def index() -> dict[str, str]:
    """Return pip's own index, where one is configured, for uv."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return {"UV_DEFAULT_INDEX": found.stdout.strip()} if found.returncode == 0 else {}


@pytest.mark.slow
def test_in_an_empty_environment_it_gives_the_command_its_templates_and_a_trained_model(tmp_path: Path) -> None:
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))  # builds leave files
    ran(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source)
    (wheel,) = tmp_path.glob("parterre-*.whl")
    ran(UV, "venv", "-q", "--python", sys.executable, tmp_path / "venv")
    place = {"VIRTUAL_ENV": str(tmp_path / "venv"), **index()}
    limits = tmp_path / "limits.txt"  # cryptography: the lock overrides Flower's limit, which pip's user meets
    locked = (ROOT / "requirements.lock").read_text().splitlines(keepends=True)
    limits.write_text("".join(line for line in locked if not line.startswith("cryptography==")))
    ran(UV, "pip", "install", "-q", "-c", limits, wheel, cwd=tmp_path, **place)
    ran(UV, "pip", "check", cwd=tmp_path, **place)
    fl = tmp_path / "venv" / "bin" / "fl"
    for template in ("tabular", "images", "text", "timeseries"):
        ran(fl, "new", template, "--template", template, cwd=tmp_path)
        assert (tmp_path / f"{template}.py").is_file()
    ran(fl, "check", "--task", "./tabular.py", cwd=tmp_path)
    for command in (("simulate",), ("up", "--clients", "2")):
        out = tmp_path / command[0]
        ran(fl, *command, "--task", "./tabular.py", "--rounds", "1", "--out", out, cwd=tmp_path)
        assert (out / "model.keras").is_file()
    assert str(ROOT) not in ran(fl.with_name("python"), "-c", "import fl_cli; print(fl_cli.__file__)", cwd=tmp_path)
    assert "usage" in ran(fl.with_name("flower-simulation"), "--help", cwd=tmp_path).lower()

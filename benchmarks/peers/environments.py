"""One virtual environment a peer, in the cache folder: `python benchmarks/peers/environments.py [NAME ...]`.

Without names, makes those that are not there; with names, makes these anew. What an installer said is kept beside each,
and a peer that does not install is reported with its reason.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.plans import CACHE

UV = Path(__file__).parents[2] / ".venv" / "bin" / "uv"
NICE = ("nice", "-n", "10")


@dataclass(frozen=True)
class Environment:
    """What is installed, with which installer, and the import that shows that it works. `why`: why these versions."""

    packages: tuple[str, ...]
    check: str
    overrides: tuple[str, ...] = ()
    pip: bool = False
    python: str = "3.11"
    why: str = ""


ENVIRONMENTS = {
    "flower": Environment(
        ("flwr[simulation]==1.32.1", "tensorflow-cpu==2.19.1"),
        "import ray, tensorflow, flwr.simulation",
        why="with TensorFlow 2.21 a worker of Ray's had aborted here in Abseil's mutex ('Mutex corrupt'), which could "
        "not be repeated later; 2.19 never did",
    ),
    "pfl-torch": Environment(
        ("torch==2.13.0", "pfl[pytorch]==0.6.0"),
        "import torch, pfl.model.pytorch",
        pip=True,
        why="pip, which finds a local wheel of torch for the CPU where there is one",
    ),
    "pfl-tf": Environment(("pfl[tf]==0.6.0", "tensorflow==2.21.0"), "import tf_keras, pfl.model.tensorflow"),
    "fedjax": Environment(
        ("fedjax==0.0.17", "jax==0.4.25", "jaxlib==0.4.25", "dm-haiku==0.0.12", "numpy<2"),
        "import fedjax",
        why="the fastest JAX of those tried that it works with: on W1 three times as fast as 0.4.38",
    ),
    "fedjax-new": Environment(
        ("fedjax==0.0.17", "jax==0.5.3", "jaxlib==0.5.3", "dm-haiku==0.0.17"),
        "import fedjax",
        why="the newest JAX tried that it works with; with 0.9.2 it stops: module 'jax' has no attribute 'tree_map'",
    ),
    "tff": Environment(
        ("tensorflow-federated==0.87.0", "setuptools<70"),
        "import tensorflow_federated",
        overrides=("jax==0.4.20", "jaxlib==0.4.20"),
        why="it asks for jaxlib 0.4.14, which the package index no longer has; 0.4.20 is given in its place. JAX is "
        "not used in what is measured",
    ),
    "nvflare": Environment(("nvflare==2.9.0", "tensorflow-cpu==2.21.0"), "import nvflare, tensorflow"),
}


def state(name: str) -> dict[str, Any]:
    """Return what is known of an environment: {"installed", "reason", "versions", "why"}."""
    path = CACHE / f"{name}.json"
    known = {"installed": False, "reason": "not made yet: python benchmarks/peers/environments.py"}
    return json.loads(path.read_text()) if path.exists() else known


def make(name: str) -> dict[str, Any]:
    """Make an environment anew, and return and keep its state."""
    wanted, folder = ENVIRONMENTS[name], CACHE / name
    shutil.rmtree(folder, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    reason = _said([str(UV), "venv", "--quiet", "--seed", "--python", wanted.python, str(folder)])
    reason = reason or _install(wanted, folder)
    reason = reason or _said([str(folder / "bin" / "python"), "-c", wanted.check], environment=folder)
    result = {"installed": not reason, "reason": reason, "versions": _versions(folder), "why": wanted.why}
    (CACHE / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def _install(wanted: Environment, folder: Path) -> str:
    if wanted.pip:
        return _said([str(folder / "bin" / "pip"), "install", "--quiet", *wanted.packages])
    overrides = folder / "overrides.txt"
    overrides.write_text("\n".join(wanted.overrides))
    return _said([str(UV), "pip", "install", "--quiet", *wanted.packages, "--overrides", str(overrides)], folder)


def _said(command: list[str], environment: Path | None = None) -> str:
    """Run a command; return the end of what it said if it failed, "" if it did not."""
    variables = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    if environment is not None:
        variables |= {"VIRTUAL_ENV": str(environment)}
    done = subprocess.run([*NICE, *command], capture_output=True, text=True, env=variables)
    return "" if done.returncode == 0 else (done.stderr or done.stdout)[-1500:].strip() or f"exit {done.returncode}"


def _versions(folder: Path) -> dict[str, str]:
    code = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    done = subprocess.run([str(folder / "bin" / "python"), "-c", code], capture_output=True, text=True)
    shown = ("flwr", "ray", "pfl", "torch", "fedjax", "jax", "jaxlib", "dm-haiku", "tensorflow-federated", "nvflare")
    shown += ("tensorflow", "tensorflow-cpu", "tf-keras", "keras", "numpy")
    named = json.loads(done.stdout) if done.returncode == 0 else {}
    found = {name.lower().replace("_", "-"): version for name, version in named.items()}
    return {name: found[name] for name in shown if name in found}


if __name__ == "__main__":
    for each in sys.argv[1:] or ENVIRONMENTS:
        known = state(each)
        made = known if known["installed"] and not sys.argv[1:] else make(each)
        print(each, "installed" if made["installed"] else f"FAILED: {made['reason']}", made["versions"])

"""The engines that are compared: Parterre's, and every peer's with the environment and the runner that it has."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.plans import CACHE, plan_of, workload

HERE = Path(__file__).parent
OURS = "parterre"
NOT_THEIRS = ("OPENBLAS_", "FL_", "PYTHON", "TF_ENABLE_ONEDNN")  # variables that are this machine's, or ours
MODELS = {"ragged": "mlp"}  # the model of a task file that is not named after it


@dataclass(frozen=True)
class Engine:
    """A peer, or a variant of one. `runner` is the file beside this one; torchrun starts one process a core."""

    name: str
    environment: str
    runner: str
    variant: str = ""
    torchrun: bool = False
    title: str = ""

    def command(self, name: str, seconds: float) -> list[str]:
        """Return the command that plays the workload `name`; no round begins after `seconds`."""
        facts = workload(name)
        model = MODELS.get(facts.model, facts.model)
        python = str(CACHE / self.environment / "bin" / "python")
        cores = len(os.sched_getaffinity(0))
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={cores}"] if self.torchrun else []
        return [
            *(python, *start, str(HERE / self.runner), str(plan_of(name)), "--model", model),
            *("--batch-size", str(facts.batch), "--learning-rate", str(facts.learning_rate)),
            *("--rounds", str(facts.warm + facts.rounds), "--seconds", str(seconds), "--variant", self.variant),
        ]

    def variables(self) -> dict[str, str]:
        """Return the environment variables it is run with; its environment's commands come first on the path."""
        path = f"{CACHE / self.environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(NOT_THEIRS)}
        threads = {"OMP_NUM_THREADS": "1"} if self.torchrun else {}
        return kept | threads | {"PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "FLWR_TELEMETRY_ENABLED": "0"}


ENGINES = {
    each.name: each
    for each in (
        Engine("pfl-torch", "pfl-torch", "pfl_torch.py", title="pfl-research, PyTorch, 1 process"),
        Engine("pfl-torch-workers", "pfl-torch", "pfl_torch.py", "", True, "pfl-research, PyTorch, a process a core"),
        Engine("pfl-tf", "pfl-tf", "pfl_tf.py", title="pfl-research, TensorFlow"),
        Engine("fedjax", "fedjax", "fedjax_runner.py", title="FedJAX, jit, JAX 0.4.25"),
        Engine("fedjax-new", "fedjax-new", "fedjax_runner.py", title="FedJAX, jit, JAX 0.5.3"),
        Engine("fedjax-pmap", "fedjax", "fedjax_runner.py", "pmap", title="FedJAX, pmap, JAX 0.4.25"),
        Engine("tff", "tff", "tff_runner.py", "functional-iterator", title="TensorFlow Federated, its iterator loop"),
        Engine("tff-default", "tff", "tff_runner.py", title="TensorFlow Federated, as it comes"),
        Engine("flower-cached", "flower", "flower_runner.py", "cached", title="Flower on Ray, model kept"),
        Engine("flower", "flower", "flower_runner.py", title="Flower on Ray, quickstart"),
        Engine("nvflare", "nvflare", "nvflare_runner.py", title="NVFlare simulator, 10 clients, a process a task"),
        Engine(
            "nvflare-resident",
            "nvflare",
            "nvflare_runner.py",
            "resident",
            title="NVFlare simulator, 10 resident clients",
        ),
    )
}


def ours(name: str, out: str) -> list[str]:
    """Return the command by which Parterre plays the workload `name`, into the run directory `out`."""
    facts = workload(name)
    settings = facts.settings() | {"tensorboard": "false", "plot": "false", "rounds": facts.warm + facts.rounds}
    assigned = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "fl_cli.main", "simulate", "--json", "--clients", str(facts.clients)]
    return [*command, "--seed", "0", *assigned, "--out", out]

"""Writes the README's table of measurements from benchmarks/results. Run it after a benchmark."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
Row = tuple[str, str, str]  # what, measured, script

START, END = "<!-- measured:start -->\n", "<!-- measured:end -->\n"


def result(name: str) -> dict[str, Any]:
    """Read one result."""
    return dict(json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()))


def table() -> str:
    """Return the table as Markdown."""
    deployed = result("deployed_round")
    rows = [
        *_deployed(deployed),
        *_started(result("startup")),
        *_folded(result("aggregation")),
        *_containers(result("containers")),
        *_simulated(result("simulation")["results"]),
    ]
    machine, versions = deployed["machine"], deployed["versions"]
    lines = ["| what | measured | script |", "|---|---|---|", *(f"| {a} | {b} | `{c}` |" for a, b, c in rows)]
    lines += [
        "",
        f"{machine['cpu']}, {machine['cores']} virtual cores, {machine['memory_gb']:.0f} GB, shared and noisy; Python "
        f"{versions['python']}, flwr {versions['flwr']}, TensorFlow {versions.get('tensorflow-cpu', '')}; "
        f"{deployed['date'][:10]}. `make bench` measures the server's rows again, `python benchmarks/SCRIPT` those of "
        "one script; `benchmarks/results` holds every value, with its own date.",
    ]
    return "\n".join(lines) + "\n"


def _deployed(rounds: dict[str, Any]) -> list[Row]:
    """Return the rows of a deployed round."""
    phases, inside = rounds["ours_phases_median_s"], rounds["inside_the_phases_median_s"]
    evaluates = max(inside["slowest client evaluates"], inside["server evaluates"])
    return [
        (
            "a round (train and evaluate), 2 clients, digits, `mlp`",
            f"{rounds['ours_median_s']:.2f} s with TLS and signed calls; the same app on stock Flower processes, with "
            f"neither, {rounds['stock_median_s']:.1f} s ({rounds['ratio']:.0f} times)",
            "deployed_round.py",
        ),
        (
            "where that round goes",
            f"train {phases['train'] * 1e3:.0f} ms, of which computing {inside['slowest client trains'] * 1e3:.0f}; "
            f"evaluate {phases['evaluate'] * 1e3:.0f} ms, of which computing {evaluates * 1e3:.0f}; aggregate "
            f"{phases['aggregate'] * 1e3:.0f} ms; commit {phases['commit'] * 1e3:.0f} ms. "
            "The rest of the phases is gRPC calls and polling",
            "deployed_round.py",
        ),
    ]


def _started(start: dict[str, Any]) -> list[Row]:
    """Return the rows of starting, and of what idles."""
    client, shared = start["client_alone"], start["up_4_clients_memory_mb"]
    return [
        (
            "`fl up` with 4 clients, from the command to the end of the first round",
            f"{start['up_4_clients_median']['to_first_round_s']:.1f} s",
            "startup.py",
        ),
        (
            "memory: a client on its own, at its peak; a client of `fl up`, its share",
            f"{client['peak_rss']:.0f} MB; {max(each['pss'] for each in shared['client']):.0f} MB",
            "startup.py",
        ),
        ("an idle client", f"{client['idle_cpu_percent']:.1f} % of a core", "startup.py"),
        ("`fl --help`", f"{start['help_median_s']:.2f} s", "startup.py"),
    ]


def _folded(folds: dict[str, Any]) -> list[Row]:
    """Return the rows of aggregation."""
    return [
        *(
            (
                f"aggregating {name}",
                f"{case['clock']['ours_gb_s']:.1f} GB/s; Flower's FedAvg {case['clock']['flower_gb_s']:.1f} "
                f"({case['clock']['ratio']:.1f} times). In the first round of a process "
                f"{case['first_round']['ours_gb_s']:.1f} and {case['first_round']['flower_gb_s']:.1f}. Memory "
                f"{case['ours_peak_mb']:.0f} MB more than before the round; Flower {case['flower_peak_mb']:.0f}",
                "aggregation.py",
            )
            for name, case in folds["cases"].items()
        ),
        (
            "memory bandwidth beside that (NumPy's `a += b`, 1 and 2 threads)",
            " and ".join(f"{each['add_gb_s']:.0f}" for each in folds["memory_bandwidth"].values()) + " GB/s",
            "aggregation.py",
        ),
    ]


def _containers(found: dict[str, Any]) -> list[Row]:
    """Return the rows of containers."""
    up, idle, sizes = found["up"], found["idle"], found["sizes"]
    rounds = {count: each["round_s"] for count, each in found["scale"].items() if count.isdigit()}
    return [
        (
            "images: server, client",
            f"{sizes['server']['mb']:,} and {sizes['client']['mb']:,} MB, of which TensorFlow "
            f"{sizes['client']['packages_mb']['tensorflow']:.0f}, and all but 301 shared "
            "([what is in them](docs/reference/images.md))",
            "containers.py",
        ),
        (
            "`docker compose up` of 3 clients, images built: to the end of the first round, and of ten",
            f"{up['first_round_s']:.0f} s, {up['end_s']:.0f} s",
            "containers.py",
        ),
        (
            "a client container that waits; the server's, probe included",
            f"{idle['client_memory_mb']:.0f} MB and {100 * idle['client_cpu_of_a_core']:.1f} % of a core; "
            f"{idle['server_memory_mb']:.0f} MB and {100 * idle['server_cpu_of_a_core']:.0f} %",
            "containers.py",
        ),
        (
            f"a round in containers of {', '.join(rounds)} clients, all on these cores",
            ", ".join(f"{seconds:.2g}" for seconds in rounds.values()) + " s",
            "containers.py",
        ),
    ]


def _simulated(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the simulation."""
    titles = {"W1": "1,000 clients of Fashion-MNIST, 100 a round, dense 784-10-10", "W2": "the same, a small CNN"}
    rows = [
        (
            f"`fl simulate`: {title}",
            f"{each['updates_a_second']['training']:,.0f} client updates/s in training, "
            f"{each['updates_a_second']['end_to_end']:,.0f} with evaluation and checkpoint in each round; "
            f"{each['cpu_ms_an_update']:.2g} ms CPU an update, {each['peak_memory_mb']:,} MB",
            "simulation.py",
        )
        for name, title in titles.items()
        for each in [found[name]]
    ]
    grown = [found[name] for name in ("G1", "G10", "G100")]
    seconds = (f"{1000 / each['updates_a_second']['training']:.2f}" for each in grown)
    memory = (f"{each['peak_memory_mb']:,}" for each in grown)
    return [
        *rows,
        (
            "a round of 1,000 out of 1,000, 10,000 and 100,000 simulated clients",
            f"{', '.join(seconds)} s; peak memory {', '.join(memory)} MB",
            "simulation.py",
        ),
    ]


def main() -> None:
    """Write it."""
    text = README.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    README.write_text(before + START + table() + END + after)


if __name__ == "__main__":
    main()

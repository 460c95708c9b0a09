"""Observers: TensorBoard's logs hold the rounds' numbers, and a picture is drawn of every run that had a round."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fl_common.errors import StoreError
from fl_server.observers import panels, plots


def round_(number: int, **more: Any) -> dict[str, Any]:
    return {
        "event": "round",
        "round": number,
        "seconds": 0.25,
        "cohort": 4,
        "replies": 4,
        "rejected": 0,
        "loss": 1 / number,
        "accuracy": 1 - 0.5 / number,
        "bytes_up": 13_700,
        "bytes_down": 26_400,
        "evaluated_on": "test",
        "phases": {"train": 0.1, "aggregate": 0.01, "evaluate": 0.05, "commit": 0.01},
        "spread": {"loss": [0.1, 0.2, 0.3, 0.4, 0.5], "accuracy": [0.5, 0.6, 0.7, 0.8, 0.9]},
    } | more


def recorded(directory: Path) -> dict[tuple[str, int], float]:
    """Read TensorBoard's log: records of length, checksum, event, checksum."""
    from fl_common.models.frameworks import tf

    found = {}
    for path in directory.iterdir():
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = tf.compat.v1.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return found


def is_drawn(path: Path) -> bool:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    return picture.format == "PNG" and pixels.shape[1] >= 1200 and 0.008 < (pixels < 250).mean() < 0.6


def test_tensorboard_is_given_every_number_of_a_round_while_the_run_goes_on(tmp_path: Path) -> None:
    from fl_server.observers.tensorboard import TensorBoard

    board = TensorBoard(tmp_path)
    board.on_event({"event": "started", "run": "demo"})
    board.on_event(round_(1))
    board.on_event(round_(2, accuracy=None, spread={}))
    logged = recorded(tmp_path)
    board.close()
    assert logged["federated/loss", 2] == 0.5
    assert logged["federated/accuracy", 1] == 0.5
    assert ("federated/accuracy", 2) not in logged
    assert logged["seconds/train", 1] == pytest.approx(0.1)
    assert logged["clients_accuracy/median", 1] == pytest.approx(0.7)
    assert logged["bytes/down", 1] == 26_400


@pytest.mark.parametrize("rounds", [1, 2, 30, 200])
def test_a_run_of_any_length_is_drawn(tmp_path: Path, rounds: int) -> None:
    started = {"event": "started", "task": "digits", "strategy": "fedavg", "parameters": 760, "seed": 0}
    plots.draw([started, *(round_(number) for number in range(1, rounds + 1))], tmp_path / "plot.png")
    assert is_drawn(tmp_path / "plot.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["plot.png"]


BARE = {"event": "round", "round": 1}
ODD = {
    "nothing but the number": [BARE],
    "measures that are null": [round_(1, loss=None, accuracy=None, spread={"loss": [None] * 5})],
    "a loss of zero": [round_(1, loss=0.0, spread={}), round_(2, loss=0.0, spread={})],
    "a loss that is no number": [round_(1), round_(2, loss=float("nan")), round_(3, loss=float("inf"))],
    "metrics of every kind": [
        round_(n, metrics={f"a_long_name_of_an_output_{k}": -n * k for k in range(9)} | {"bad": float("nan")})
        for n in (1, 2)
    ],
    "a diverging loss": [round_(number, loss=10.0 ** (3 * number)) for number in range(1, 9)],
    "rejections and a slow first round": [round_(1, seconds=90.0), *(round_(n, rejected=1) for n in range(2, 9))],
    "no traffic and no time": [round_(n, seconds=0, phases={}, bytes_up=0, bytes_down=0) for n in range(1, 9)],
}


@pytest.mark.parametrize("events", ODD.values(), ids=ODD.keys())
@pytest.mark.filterwarnings("error")
def test_odd_runs_are_drawn_without_a_warning(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    plots.draw(events, tmp_path / "plot.png")
    assert is_drawn(tmp_path / "plot.png")


def test_a_metric_has_one_colour_and_no_two_in_a_picture_share_one() -> None:
    names = ["loss", "mae", "auc", "top_k", "precision", "recall"]
    found = panels.colours(names)
    assert len(set(found.values())) == len(names)
    assert panels.colours(["mae"])["mae"] == panels.colours(["loss", "accuracy", "mae"])["mae"]


def test_a_run_without_a_round_has_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no round"):
        plots.draw([{"event": "started"}], tmp_path / "plot.png")


def test_a_plot_that_cannot_be_written_is_told_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write the plot"):
        plots.draw([BARE], tmp_path / "missing" / "plot.png")

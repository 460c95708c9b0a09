"""`fl up --data`: a client for each file, with strings and gaps in it; and what happens where one cannot be used."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.integration.conftest import events, fl

TASK = """
import keras

def build_model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

def load_partition(partition, partitions):
    raise AssertionError("every client has data of its own")

def prepare(frame):
    return frame.assign(sex=frame["sex"] == "f", dose=frame["dose"].fillna(0), label=frame["label"] == "ill")
"""


def table(path: Path, seed: int, **columns: object) -> str:
    rng = np.random.default_rng(seed)
    sex, dose = rng.choice(["f", "m"], 60), rng.normal(size=60)
    frame = pd.DataFrame(
        {"sex": sex, "dose": np.where(dose < -1, np.nan, dose), "label": np.where(dose > 0, "ill", "")}
    )
    frame.assign(**columns).to_csv(path, index=False)
    return str(path)


@pytest.mark.slow
def test_up_gives_each_client_a_file_of_its_own_and_resume_gives_it_again(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TASK)
    a, b = table(tmp_path / "a.csv", 1), table(tmp_path / "b.csv", 2, who="Smith")
    out = str(tmp_path / "run")
    given = ("--task", str(tmp_path / "own.py"), "--data", a, "--data", b, "--ignore", "who", "--rounds", "1")
    done = fl("up", *given, "--out", out)
    assert done.returncode == 0, done.stderr
    done = fl("resume", out, "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert [event["replies"] for event in events(Path(out), "round")] == [2, 2]


@pytest.mark.slow
def test_columns_in_another_order_are_put_in_order_and_others_end_the_run_with_their_name(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TASK)
    a, b = table(tmp_path / "a.csv", 1), table(tmp_path / "b.csv", 2)
    turned = pd.read_csv(b)[["label", "dose", "sex"]]
    turned.to_csv(b, index=False)
    given = ("--task", str(tmp_path / "own.py"), "--data", a, "--data", b, "--rounds", "1")
    done = fl("up", *given, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert [event["replies"] for event in events(tmp_path / "run", "round")] == [2]
    renamed = {"sex": "amount"}
    pd.read_csv(a).assign(sex=1.0, dose=2.0, label=0).to_csv(a, index=False)
    turned.assign(sex=1.0, dose=2.0, label=0).rename(columns=renamed).to_csv(b, index=False)
    (tmp_path / "own.py").write_text(TASK[: TASK.index("def prepare")])
    done = fl("up", *given, "--out", str(tmp_path / "other"))
    assert done.returncode == 2
    assert "has the column 'amount', which the others lack" in done.stderr
    logs = {path.name: path.read_text() for path in (tmp_path / "other" / "logs").glob("client-*.log")}
    assert "Its names that they lack: 'amount'" in logs["client-1.log"]
    assert "amount" not in logs["client-0.log"]


@pytest.mark.slow
def test_a_client_whose_data_cannot_be_used_ends_up_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TASK)
    a, b = table(tmp_path / "a.csv", 1), table(tmp_path / "b.csv", 2, who="Smith")
    out = tmp_path / "run"
    done = fl("up", "--task", str(tmp_path / "own.py"), "--data", a, "--data", b, "--out", str(out))
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said.startswith("error: client-1 cannot take part: column 'who' of ")
    assert "Traceback" not in done.stderr
    assert not events(out, "round")


def test_data_that_are_missing_or_of_another_number_than_clients_are_told_at_once(tmp_path: Path) -> None:
    a = table(tmp_path / "a.csv", 1)
    for given, words in (
        (("--data", a, "--data", str(tmp_path / "b.csv")), "there are no data at"),
        (("--data", a, "--clients", "3"), "--clients must be 1, one for each --data; got 3"),
        (("--label", "ill"), "give --data"),
    ):
        done = fl("up", *given)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_a_client_whose_data_cannot_be_used_ends_before_it_asks_for_a_server(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", 1)
    done = fl("client", "--server", "127.0.0.1:1", "--insecure", "--data", path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: column 'sex' of ")
    assert "Traceback" not in done.stderr

"""Ctrl-C in a run that this process computes, and what a task prints there."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fl_cli.follow import from_log
from fl_cli.interrupts import Interrupts
from fl_server.store.runs import Run
from parterre.federation import Stopped, stopping_on_signals


@pytest.fixture(autouse=True)
def default_handlers():
    """A shell's background jobs begin with Ctrl-C ignored; these tests do not."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def press(said):
    """Send this process a Ctrl-C, and wait until the thread has heard it."""
    before = len(said)
    os.kill(os.getpid(), signal.SIGINT)
    while len(said) == before:
        threading.Event().wait(0.01)


def test_once_it_stops_after_the_round():
    said = []
    with Interrupts(said.append, lambda: "the end") as interrupts:
        interrupts.halt()
        press(said)
        with pytest.raises(Stopped):
            interrupts.halt()
    assert said == ["stopping after this round; Ctrl-C again stops now"]


def test_twice_it_stops_now():
    said = []
    with pytest.raises(Stopped), Interrupts(said.append, lambda: "the end") as interrupts:  # noqa: PT012
        interrupts.halt()
        press(said)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(60)
    assert len(said) == 1


@pytest.mark.parametrize(("number", "rounds"), [(signal.SIGINT, 0), (signal.SIGTERM, 1)])
def test_before_the_rounds_and_by_another_signal_once_is_enough(number, rounds):
    with pytest.raises(Stopped), Interrupts(pytest.fail, lambda: "the end") as interrupts:  # noqa: PT012
        for _ in range(rounds):
            interrupts.halt()
        os.kill(os.getpid(), number)
        threading.Event().wait(60)
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


@pytest.mark.parametrize("entered", [lambda: Interrupts(pytest.fail, lambda: "the end"), stopping_on_signals])
def test_a_terminal_that_hangs_up_ends_a_run_but_not_one_under_nohup(entered):
    with pytest.raises(Stopped), entered():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGHUP)
        threading.Event().wait(60)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with entered():
        os.kill(os.getpid(), signal.SIGHUP)
        threading.Event().wait(0.1)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_events_are_found_in_a_log_that_a_task_prints_to():
    event = {"event": "round", "round": 1, "time": "now"}
    lines = ["loading", "no line feed..." + json.dumps(event), '{"event": [', json.dumps(event)]
    assert list(from_log(lines)) == [event, event]


LONG = """
import os, keras, numpy as np
print("hello from the task")
os.write(1, b"and from below\\n")

def build_model():
    print("building", end="")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

def load_partition(partition, partitions):
    x = np.ones((64, 3), "float32")
    return (x, x[:, :1]), None
"""


@pytest.fixture
def simulated(tmp_path):
    """Starts `fl simulate` on a task that prints; ends it with the test."""
    (tmp_path / "long_task.py").write_text(LONG)
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "fl_cli.main", "simulate", "--task", str(tmp_path / "long_task.py"), "--json"]
        options = ("--clients", "2", "--out", str(tmp_path / "run"), "--set", "plot=false", *arguments)
        environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
        started.append(subprocess.Popen([*command, *options], **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_simulation_stops_after_the_round_and_can_be_resumed(simulated, tmp_path):
    process = simulated("--rounds", "100000")
    first = [json.loads(process.stdout.readline()) for _ in range(4)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    events = [*first, *map(json.loads, out.splitlines())]  # a task's prints are not among them
    assert [event["event"] for event in events][:2] == ["started", "engine"]
    assert all(f"{word}" in err for word in ("hello from the task", "and from below", "building", "stopping after"))
    assert "stopped; go on with: fl resume" in err
    run = Run.open(tmp_path / "run")
    assert run.events()[-1]["event"] == "stopped"
    assert run.latest().round == events[-2]["round"] == len(run.rounds())


ENDLESS = """
import tensorflow as tf

def endless(y_true, y_pred):
    tf.print("computing")
    return tf.while_loop(lambda i, y: i < 10**15, lambda i, y: (i + 1, y), (tf.constant(0, tf.int64), y_pred))[1]
"""


@pytest.mark.slow
def test_a_simulation_in_the_middle_of_a_program_stops_at_the_second(simulated, tmp_path):
    text = LONG.replace('"sgd", "mse"', '"sgd", "mse", metrics=[endless]')
    (tmp_path / "long_task.py").write_text(ENDLESS + text)
    process = simulated("--rounds", "2", "--set", "engine=loop")
    until(process, "computing")
    process.send_signal(signal.SIGINT)
    until(process, "stopping after this round")
    process.send_signal(signal.SIGINT)
    until(process, "stopped; go on with: fl resume")
    process.communicate(timeout=300)
    assert process.returncode == 130
    assert Run.open(tmp_path / "run").rounds() == []


def until(process, words):
    """Read standard error up to a line with these words."""
    read = []
    for line in process.stderr:
        read.append(line)
        if words in line:
            return
    pytest.fail(f"{words!r} was not said: {read}")

"""The executor's thread: nothing that goes wrong in it ends it, and no claimed run is forgotten."""

import contextlib

import grpc
import pytest

from fl_common.errors import StoreError
from fl_common.network import channels
from fl_server.processes.standstill import LONGEST_STEP
from fl_server.superlink.execution.executor import Executor, _use_lasting_channels


class Failing:
    """A fork server that cannot fork the first time, as where memory runs out."""

    def __init__(self, error):
        self.error = error
        self.started = []

    def start(self, function, *arguments, **named):
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.started.append(arguments[1])
        return self

    def is_alive(self):
        return True


def claims(executor, *outcomes):
    """Return a claim with these outcomes, after which the executor is told to end."""
    left = list(outcomes)

    def claim():
        if not left:
            executor.end()
            return ""
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return claim


@pytest.mark.parametrize("error", [EOFError(), OSError(12, "Cannot allocate memory"), RuntimeError("any")])
def test_a_failed_fork_is_reported_and_the_next_run_is_started(tmp_path, error):
    launched, missed, fork_server = [], [], Failing(error)
    executor = Executor(
        fork_server,
        "127.0.0.1:1",
        log_file=tmp_path / "serverapp.log",
        environment={},
        launched=lambda token, process: launched.append(token),
        not_launched=lambda token, why: missed.append((token, why)),
    )
    executor._execute(claims(executor, "first", ValueError("a claim that goes wrong"), "", "second"))
    assert launched == fork_server.started == ["second"]
    ((token, why),) = missed
    assert token == "first"
    assert type(error).__name__ in why


class Unavailable(grpc.RpcError):
    """What a claim raises while nobody listens."""

    def code(self):
        return grpc.StatusCode.UNAVAILABLE


def asking(tmp_path, clock):
    return Executor(
        Failing(None),
        "127.0.0.1:1",
        log_file=tmp_path / "serverapp.log",
        environment={},
        launched=lambda token, process: None,
        clock=clock,
    )


def unanswered(executor, time, *seconds):
    """Let claims fail that take so many seconds each."""

    def claim():
        if not left:
            executor.end()
            return ""
        time[0] += left.pop(0)
        silences.append(executor.silence())
        raise Unavailable

    left, silences = list(seconds), []
    executor._ending.clear()
    with contextlib.suppress(RuntimeError):
        executor._execute(claim)
    return [*silences[1:], None]


def test_a_start_that_takes_an_hour_is_slow_and_not_silent(tmp_path):
    time = [0.0]
    executor = asking(tmp_path, lambda: time[0])
    assert unanswered(executor, time, *[300.0] * 12)[:-1] == [0.0] * 11


def test_silence_counts_from_readiness_and_ends_with_an_answer(tmp_path):
    time = [0.0]
    executor = asking(tmp_path, lambda: time[0])
    unanswered(executor, time, 1000.0)
    executor.is_ready()
    assert unanswered(executor, time, 5.0, 5.0, 5.0)[:-1] == [5.0, 10.0]
    assert executor.silence() == 0.0  # the claim that ends this test's turn was answered
    executor.start(b"", None)
    executor.end()
    assert executor.silence() == 0.0


def test_a_machine_that_slept_was_not_silent(tmp_path):
    time = [0.0]
    executor = asking(tmp_path, lambda: time[0])
    executor.is_ready()
    assert unanswered(executor, time, 3 * 3600.0, 1.0)[:-1] == [LONGEST_STEP]


@pytest.mark.filterwarnings("ignore:Exception in thread")  # gRPC's own, of a channel that is closed while it is watched
def test_a_runs_own_channel_does_not_wait_for_minutes_before_it_tries_again(monkeypatch):
    from flwr.superlink.grid import GrpcGrid, grpc_grid

    monkeypatch.setattr(grpc_grid, "create_channel", grpc_grid.create_channel)  # put back at the end
    given, lasting = [], channels.lasting
    monkeypatch.setattr(channels, "lasting", lambda *arguments: given.append(arguments) or lasting(*arguments))
    _use_lasting_channels(grpc_grid)
    grid = GrpcGrid("127.0.0.1:1", insecure=True, token="a token")
    grid._connect()
    grid.close()
    assert given == [("127.0.0.1:1", None)]


def test_another_flower_is_named():
    with pytest.raises(StoreError, match="another release of Flower"):
        _use_lasting_channels(contextlib)

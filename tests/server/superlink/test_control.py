"""Following a run's log over the Control API: through a server that falls, and not for ever."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from flwr.common.constant import Status, SubStatus
from flwr.proto.control_pb2 import ListRunsResponse, StreamLogsResponse
from flwr.proto.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server

from fl_common.errors import NetworkError
from fl_server.processes.listening import free_ports
from fl_server.superlink.database import COMPLETED, FAILED, LOST
from fl_server.superlink.execution import control
from fl_server.superlink.execution.control import Control

RUN = 7


class Served(ControlServicer):
    """A Control API whose log and status are the test's."""

    def __init__(self):
        self.log = ""
        self.statuses = [(Status.RUNNING, "", "")]
        (self.port,) = free_ports(1)
        self.calls = 0
        self.start()

    def start(self):
        self.server = grpc.server(ThreadPoolExecutor(4))
        add_ControlServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def StreamLogs(self, request, context):  # noqa: N802
        self.calls += 1
        read = int(request.after_timestamp)
        if self.log[read:]:
            yield StreamLogsResponse(log_output=self.log[read:], latest_timestamp=len(self.log))

    def ListRuns(self, request, context):  # noqa: N802
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if callable(status):
            status = status()
        response = ListRunsResponse()
        found = response.run_dict[RUN].status
        found.status, found.sub_status, found.details = status
        return response


@pytest.fixture
def served(monkeypatch):
    monkeypatch.setattr(control, "AGAIN_SECONDS", 0.02)
    served = Served()
    yield served
    served.server.stop(None).wait()


@pytest.fixture
def client(served):
    with Control(f"127.0.0.1:{served.port}") as client:
        yield client


def test_last_lines_that_come_after_flower_gave_a_run_up_are_read(served, client):
    def taken_up():
        served.log += '{"event": "finished"}\n'
        return (Status.FINISHED, SubStatus.COMPLETED, "")

    served.log = "a line\n"
    served.statuses = [(Status.FINISHED, FAILED, LOST[0]), taken_up, (Status.FINISHED, COMPLETED, "")]
    assert list(client.log(RUN)) == ["a line", '{"event": "finished"}']


def test_a_server_that_falls_and_comes_back_is_followed_and_one_is_told(served, client, monkeypatch):
    monkeypatch.setattr(control, "SAID_SECONDS", 0.0)
    said = []

    def fallen():
        served.log += "after\n"
        served.statuses = [(Status.FINISHED, COMPLETED, "")]
        served.server.stop(None).wait()
        served.start()
        return (Status.RUNNING, "", "")

    served.log = "before\n"
    served.statuses = [fallen]
    assert list(client.log(RUN, say=said.append)) == ["before", "after"]
    assert len(said) in (0, 2)  # gRPC may have found the server back before anything was asked


def test_a_server_that_is_gone_for_good_ends_the_following_with_what_to_do(served, client, monkeypatch):
    monkeypatch.setattr(control, "GONE_SECONDS", 0.2)
    monkeypatch.setattr(control, "SAID_SECONDS", 0.0)
    said, lines = [], client.log(RUN, say=lambda text: said.append(text))
    served.log = "before\n"
    assert next(lines) == "before"
    served.server.stop(None).wait()
    with pytest.raises(NetworkError, match=rf"no longer answers\. Run {RUN} goes on when `fl server` is started again"):
        next(lines)
    assert len(said) == 1


def test_a_connection_that_is_dead_in_silence_is_found_by_asking_anew(served, client, monkeypatch):
    monkeypatch.setattr(control, "STREAM_SECONDS", 0.1)
    quiet = served.StreamLogs

    def silent(request, context):
        if served.calls < 2:
            served.calls += 1
            while context.is_active():
                time.sleep(0.01)
            return
        served.statuses = [(Status.FINISHED, COMPLETED, "")]
        yield from quiet(request, context)

    served.StreamLogs = silent
    served.server.stop(None).wait()
    served.start()
    served.log = "at last\n"
    assert list(client.log(RUN)) == ["at last"]


class Stamped(Served):
    """A log whose lines have the times that the server's clock had."""

    def __init__(self, course):
        self.lines, self.course = [], course
        super().__init__()

    def StreamLogs(self, request, context):  # noqa: N802
        new = sorted(each for each in self.lines if each[0] > request.after_timestamp)
        if new:
            yield StreamLogsResponse(log_output="".join(f"{line}\n" for _, line in new), latest_timestamp=new[-1][0])

    def ListRuns(self, request, context):  # noqa: N802
        self.lines += self.course.pop(0)
        if not self.course:
            self.statuses = [(Status.FINISHED, COMPLETED, "")]
            self.course = [[]]
        return super().ListRuns(request, context)


@pytest.mark.parametrize("jump", [3 * 3600.0, -3600.0])
def test_no_line_is_lost_or_shown_twice_when_the_servers_clock_is_set(monkeypatch, jump):
    course = [
        [(1e9, "begun"), (1e9 + 1, "round 1"), (1e9 + 1.5, "waits")],
        [(1e9 + 2 + jump, "round 2"), (1e9 + 2.5 + jump, "waits")],
        [(1e9 + 3, "round 3")],
        [(1e9 + 4 + jump, "waits"), (1e9 + 5, "finished")],
    ]
    expected = sorted(line for each in course for _, line in each)
    served = Stamped(course)
    try:
        with Control(f"127.0.0.1:{served.port}") as client:
            assert sorted(client.log(RUN)) == expected
    finally:
        served.server.stop(None).wait()

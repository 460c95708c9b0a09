"""The end of `fl up`: a second signal does not interrupt the clean-up, and a helper that hangs is not waited for."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fl_cli import up
from fl_common.processes import forking
from parterre.federation import Stopped, stopping_on_signals, uninterrupted


def test_a_signal_during_the_clean_up_is_ignored_and_works_again_after_it() -> None:
    with stopping_on_signals():
        with uninterrupted():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_helpers_end_under_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    class Failed:
        """A federation that cannot be started."""

        def __init__(self, *_: object, **__: object) -> None:
            raise ValueError("it cannot be started")

    monkeypatch.setattr(up, "end_helpers", ended)
    monkeypatch.setattr(up, "LocalFederation", Failed)
    monkeypatch.setattr(up.LocalData, "kept", lambda directory: None)
    monkeypatch.setattr(up.repeated_warnings, "thin_out", lambda: None)
    run = SimpleNamespace(directory=up.Path.cwd(), events=list)
    with pytest.raises(ValueError, match="cannot be started"):
        up.start(run, up.Settings(), clients=1, as_json=True)  # type: ignore[arg-type]


def test_a_helper_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "GRACE_SECONDS", 0.0)
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1000)"
    helper = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert helper.stdout is not None
        helper.stdout.readline()
        reading, writing = os.pipe()
        owner = SimpleNamespace(alive=writing, pid=helper.pid)
        forking._end(owner, "alive", "pid")
        os.close(reading)
        with pytest.raises(ProcessLookupError):
            os.kill(helper.pid, 0)
        assert (owner.alive, owner.pid) == (None, None)
    finally:
        helper.kill()
        helper.communicate()

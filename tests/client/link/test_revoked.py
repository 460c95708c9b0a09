"""A client that was revoked stays alive and quiet, and is let in again where its server has become another one."""

import threading
import time

from fl_client.link.revoked import staying
from fl_client.observers.health import HealthObserver
from fl_common.errors import Revoked
from fl_common.processes import health_file


def test_who_was_revoked_stays_alive_and_is_back_when_it_is_let_in(tmp_path, caplog):
    answers, stop, heart = (
        [Revoked("this client was revoked")] * 2,
        threading.Event(),
        HealthObserver(tmp_path, "fl.example:1"),
    )

    def session():
        if answers:
            raise answers.pop()
        heart.joined(7)

    staying(session, stop, [heart], look=0.02, pulse=0.01)
    assert health_file.read(tmp_path).state == "joined"
    assert caplog.text.count("this client was revoked. It waits, and looks again") == 2


def test_who_was_revoked_leaves_when_it_is_told_to_and_beats_until_then(tmp_path):
    stop, heart = threading.Event(), HealthObserver(tmp_path, "fl.example:1")

    def session():
        raise Revoked("this client was revoked")

    client = threading.Thread(target=staying, args=(session, stop, [heart]))
    client.start()
    while health_file.read(tmp_path).state != "connecting":
        time.sleep(0.01)
    stop.set()
    client.join(30)
    assert not client.is_alive()
    assert "this client was revoked" in health_file.read(tmp_path).detail

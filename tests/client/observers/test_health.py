"""What probes of a client read: its pulse, and the file that is there while it is in."""

from fl_client.observers.health import JOINED, HealthObserver
from fl_common.processes import health_file


def test_a_client_is_marked_as_in_while_it_hears_from_its_server(tmp_path):
    (tmp_path / JOINED).touch()  # of a process that was killed
    heart = HealthObserver(tmp_path, "fl.example:1")
    there = [(tmp_path / JOINED).exists()]
    for event in (lambda: heart.joined(7), heart.heard, lambda: heart.lost("gone"), heart.heard, heart.left):
        event()
        there.append((tmp_path / JOINED).exists())
    assert there == [False, True, True, False, True, False]
    assert health_file.read(tmp_path).state == "left"

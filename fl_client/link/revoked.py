"""A client whose key was revoked: it stays, quiet, since whoever starts it again after an end would do so for ever."""

import logging
import threading
from collections.abc import Callable, Sequence

from fl_client.observers.health import Listener
from fl_common.errors import Revoked

log = logging.getLogger(__name__)

LOOK_SECONDS = 600.0  # until a server that has shut this client out is asked again: it may be another one by then
PULSE_SECONDS = 60.0  # below what `fl health client --alive` allows


def staying(
    session: Callable[[], None],
    stop: threading.Event,
    listeners: Sequence[Listener],
    *,
    look: float = LOOK_SECONDS,
    pulse: float = PULSE_SECONDS,
) -> None:
    """Run `session`, and again each `look` seconds for as long as it raises Revoked, until `stop`."""
    while not stop.is_set():
        try:
            session()
            return
        except Revoked as error:
            log.warning("%s. It waits, and looks again every %.0f min.", error, look / 60)
            left = look
            while left > 0 and not stop.is_set():
                for listener in listeners:
                    listener.lost(str(error))
                stop.wait(min(pulse, left))
                left -= pulse

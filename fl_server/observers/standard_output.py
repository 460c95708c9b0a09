"""Events as JSON lines on standard output: Flower carries a ServerApp's output, and `fl run` shows it.

What a task prints goes to standard error while a run is served, so that here events stand alone.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any


class StandardOutput:
    """Writes each event as one line of JSON, to what was standard output when it was made."""

    def __init__(self) -> None:
        self._out = sys.stdout

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Write one event."""
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing is held open."""

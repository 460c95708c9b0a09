"""Events as JSON lines on standard output: Flower carries a ServerApp's output, and `fl run` shows it."""

import json
import sys
from collections.abc import Mapping
from typing import Any


class StandardOutput:
    """Writes each event as one line of JSON."""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Write one event."""
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is held open."""

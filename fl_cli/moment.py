"""When this process's command began: imported before anything else, so that "finished in" is the whole command."""

import time

BEGAN = time.monotonic()

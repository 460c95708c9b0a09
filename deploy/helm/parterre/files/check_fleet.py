"""helm test: wait until the server's metrics count enough connected clients; exit 1 where they do not come."""

import os
import re
import sys
import time
import urllib.request

CONNECTED = re.compile(r"^parterre_connected_clients(?:\{.*\})? ([0-9.e+]+)$", re.M)


def connected(address: str) -> int:
    """Return how many clients the server counts."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the release's own names go through no proxy
    with direct.open(address, timeout=5) as answer:
        found = CONNECTED.search(answer.read().decode())
    return int(float(found[1])) if found else 0


def main() -> str | None:
    """Return what is wrong; None once enough are connected."""
    address, wanted = os.environ["METRICS"], int(os.environ["MIN_CLIENTS"])
    limit = time.monotonic() + int(os.environ["TIMEOUT"])
    said = ""
    while time.monotonic() < limit:
        try:
            have = connected(address)
            said = f"{have} clients are connected; {wanted} wanted"
            if have >= wanted:
                print(said)
                return None
        except OSError as error:
            said = f"{address} cannot be read: {error}"
        time.sleep(2)
    return said


sys.exit(main())

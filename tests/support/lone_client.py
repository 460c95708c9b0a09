"""A client in a process of its own, which can be killed: it takes a message, says so in a file, and never answers."""

import sys
import threading
import time
from pathlib import Path

from fl_client.link.connection import Connection
from fl_client.link.node import Node


def main(address: str, taken: str) -> None:
    def app(message, context):
        Path(taken).touch()
        time.sleep(10_000)

    Node(app, lambda: Connection(address), node_config={}, stop=threading.Event()).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])

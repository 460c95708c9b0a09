"""An HTTP proxy that answers CONNECT, on loopback: every name leads to this machine."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    """What it was asked for is in `asked`, as the first line and the headers of each request."""

    def __init__(self, *, refuse: bool = False) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._refuse = refuse
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head and (part := client.recv(4096)):
                head += part
            self.asked.append(head.decode("latin-1"))
            if self._refuse:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            port = int(head.split()[1].rpartition(b":")[2])
            try:
                target = socket.create_connection(("127.0.0.1", port))
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                return
            with target:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                _pass_on(client, target)

    def close(self) -> None:
        self._listener.close()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    ends = {one: other, other: one}
    while True:
        for ready in select.select(list(ends), [], [])[0]:
            try:
                content = ready.recv(65536)
                ends[ready].sendall(content)
            except OSError:
                return
            if not content:
                return


@contextmanager
def proxy(*, refuse: bool = False) -> Iterator[Proxy]:
    """Give a proxy that is closed at the end."""
    made = Proxy(refuse=refuse)
    try:
        yield made
    finally:
        made.close()

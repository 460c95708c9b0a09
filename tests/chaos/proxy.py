"""A TCP proxy of the tests' own: a port for each client, whose connections can be cut, delayed and throttled."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK = 1 << 14
DELAY_SECONDS = 0.2
THROTTLE_BYTES = 20_000  # a second
NETWORK = (OSError, asyncio.IncompleteReadError)


class Line:
    """What one client's connections go through."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.mode = "pass"
        self.writers: set[asyncio.StreamWriter] = set()
        self.carried = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "cut":
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        self.writers |= {writer, back}
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            for each in (writer, back):
                each.transport.abort()
                self.writers.discard(each)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                if self.mode == "delay":
                    await asyncio.sleep(DELAY_SECONDS)
                elif self.mode == "throttle":
                    await asyncio.sleep(len(data) / THROTTLE_BYTES)
                self.carried += len(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except (*NETWORK, RuntimeError):
            writer.transport.abort()

    def cut(self) -> None:
        """Reset every connection there is."""
        for writer in list(self.writers):
            writer.transport.abort()


class Proxy:
    """The lines of all clients, served by a thread. `ports[n]` is where client n connects."""

    def __init__(self, upstream: int, ports: list[int]) -> None:
        self.ports = ports
        self.lines = [Line(upstream) for _ in ports]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._servers = [self._run(asyncio.start_server(line.accept, "127.0.0.1", port))
                         for line, port in zip(self.lines, ports, strict=True)]  # fmt: skip

    def set(self, client: int, mode: str) -> None:
        """Have a client's line "pass", "delay", "throttle", or "cut": reset now, and every new connection refused."""
        self.lines[client].mode = mode
        if mode == "cut":
            self._loop.call_soon_threadsafe(self.lines[client].cut)

    def close(self) -> None:
        """Cut everything and end the thread."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for line in self.lines:
            line.cut()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

"""Prometheus metrics of a client: what it is asked to do and does, and whether it reaches its server.

docs/reference/metrics.md describes each of them.
"""

import time

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """A listener of a connection that counts."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"parterre_client_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"parterre_client_{name}", text, registry=registry)

        self._connected = gauge("connected", "1 while the server answers, 0 otherwise.")
        self._heard = gauge("heard_timestamp_seconds", "When the server last answered a heartbeat, since 1970.")
        self._joins = counter("joins", "How often this client joined: the first time, and after each loss.")
        self._losses = counter("losses", "Failed attempts to reach the server.")
        self._messages = counter("messages", "Messages answered, errors included.", "type")
        self._errors = counter("errors", "Messages answered with an error.", "type")
        self._received = counter("received_bytes", "Arrays received from the server.")
        self._sent = counter("sent_bytes", "Arrays sent to the server.")
        self._seconds = Histogram(
            "parterre_client_message_seconds",
            "Seconds from a message to its answer.",
            ("type",),
            buckets=SECONDS,
            registry=registry,
        )
        for kind in ("train", "evaluate"):  # so that they are there before the first message
            self._messages.labels(kind), self._errors.labels(kind), self._seconds.labels(kind)

    def joined(self, node: int) -> None:
        """Count it."""
        self._joins.inc()
        self.heard()

    def heard(self) -> None:
        """Take note."""
        self._connected.set(1)
        self._heard.set(time.time())

    def lost(self, why: str) -> None:
        """Count it."""
        self._connected.set(0)
        self._losses.inc()

    def received(self, size: int) -> None:
        """Add it up."""
        self._received.inc(size)

    def answered(self, kind: str, seconds: float, size: int, *, failed: bool) -> None:
        """Count it."""
        self._messages.labels(kind).inc()
        self._seconds.labels(kind).observe(seconds)
        self._sent.inc(size)
        if failed:
            self._errors.labels(kind).inc()

    def left(self) -> None:
        """Take note."""
        self._connected.set(0)

"""gRPC channels that last, over any restart of the other side."""

from collections.abc import Sequence

import grpc

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own goes up to two minutes: a server that was away for ten would be without clients for two more.
    ("grpc.max_reconnect_backoff_ms", 5000),
)


def lasting(address: str, root: bytes | None, options: Sequence[tuple[str, int]] = OPTIONS) -> grpc.Channel:
    """Return a channel to `host:port` that tries again every few seconds; plaintext without the CA's PEM `root`."""
    if root is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root), options=options)

"""Who a client is: its key and the CA of its server, in a state directory that outlasts restarts and has one user.

The key is made here and never leaves. Files: `key.pem`, `public.pem`, `ca.crt`, `enrolled` (the id
of the token it was), `lock`.
"""

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path

from fl_common.errors import SecretError
from fl_common.trust import keys, secret_files
from fl_common.trust.keys import PrivateKey, fingerprint

HOME = Path("~/.parterre/clients")
MOST_SLOTS = 4096
KEY, PUBLIC, CA, ENROLLED, LOCK = "key.pem", "public.pem", "ca.crt", "enrolled", "lock"


@dataclass
class Identity:
    """A state directory that this process has locked, and the key in it."""

    directory: Path
    key: PrivateKey
    _lock: int

    @property
    def authority(self) -> bytes | None:
        """The CA's certificate, once it is known."""
        path = self.directory / CA
        return path.read_bytes() if path.exists() else None

    def trust(self, certificate: bytes) -> None:
        """Know the server by this CA from now on."""
        secret_files.write(self.directory / CA, certificate)

    def trusts(self, wanted: str) -> bool:
        """Say whether the CA known is the one of this fingerprint."""
        return self.authority is not None and fingerprint(self.authority) == wanted

    @property
    def public_file(self) -> Path:
        """The file of the public key, for `fl enroll key` and Flower's own tools."""
        return self.directory / PUBLIC

    def enrolled_with(self, token: str) -> bool:
        """Say whether this key was enrolled by the token of that id."""
        path = self.directory / ENROLLED
        return path.exists() and path.read_text().strip() == token

    def note_enrolled(self, token: str) -> None:
        """Take note of it, so that the token is not shown again."""
        secret_files.write(self.directory / ENROLLED, token.encode())

    @property
    def client(self) -> str:
        """The client's id, as `fl clients` shows it."""
        return keys.client_id(keys.public_pem(self.key.public_key()))

    def close(self) -> None:
        """Let another process use the directory."""
        os.close(self._lock)


def open_identity(directory: str, server: str, shared: str = "") -> Identity:
    """Return the identity in a directory, made where there is none.

    Without a directory it is one below `shared`, or else below ~/.parterre/clients and of this server: the first that
    no other client uses. So N clients that share it have N identities, whichever of them is started again.
    Raises SecretError where it is in use or cannot be used.
    """
    if directory:
        return _opened(Path(directory).expanduser())
    place = Path(shared).expanduser() if shared else HOME.expanduser() / _name_of(server)
    for number in range(MOST_SLOTS):
        try:
            return _opened(place / str(number))
        except _InUseError:
            continue
    raise SecretError(f"{MOST_SLOTS} clients use {place} already. Name another directory with --state or --states.")


class _InUseError(SecretError):
    pass


def _name_of(server: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", server) or "server"


def _opened(directory: Path) -> Identity:
    secret_files.make_directory(directory)
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise _InUseError(
            f"another client uses the state directory {directory}. Each client needs one of its own: name it with "
            "--state, or name none and one is chosen."
        ) from None
    try:
        return Identity(directory, _key(directory), lock)
    except BaseException:
        os.close(lock)
        raise


def _key(directory: Path) -> PrivateKey:
    path = directory / KEY
    if not path.exists():
        secret_files.write(path, keys.private_pem(keys.generate()))
    key = keys.read_private(secret_files.read(path, "this client's key"), str(path))
    if not (directory / PUBLIC).exists():
        secret_files.write(directory / PUBLIC, keys.public_pem(key.public_key()), mode=0o644)
    return key

"""What says who may come in to one server: the files in its home, made where they are missing."""

import json
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_common import private
from fl_common.errors import SecretError
from fl_common.tokens import Token
from fl_server import certificates
from fl_server.admitted import Labels
from fl_server.certificates import LOCAL_NAMES, Files, normal
from fl_server.control import Control
from fl_server.registry import Registry

LOST_AFTER_SECONDS = 20.0
ANY = ("0.0.0.0", "::", "*")  # noqa: S104 - compared with, not bound to
CREDENTIAL = "control.credential"
CHOSEN = "certificates.json"  # where somebody else's certificates are, for the commands beside the server


@dataclass(frozen=True)
class Access:
    """`names` are what clients may call the server by; `insecure` turns all of it off."""

    home: Path
    files: Files
    names: tuple[str, ...] = LOCAL_NAMES
    insecure: bool = False
    lost_after_seconds: float = LOST_AFTER_SECONDS

    @property
    def credential(self) -> Path:
        """The file with the credential of Control."""
        return self.home / CREDENTIAL


def prepare(
    home: Path,
    *,
    names: Sequence[str] = (),
    files: Files | None = None,
    insecure: bool = False,
    lost_after_seconds: float = LOST_AFTER_SECONDS,
) -> Access:
    """Make what is missing in a server's home. `files` are somebody else's certificates. Raises SecretError."""
    private.make_directory(home)
    wanted = tuple(dict.fromkeys(map(normal, [*names, *LOCAL_NAMES])))
    access = Access(home, files or Files.inside(home), wanted, insecure, lost_after_seconds)
    if insecure:
        return access
    if files is not None:
        certificates.check(files)
        private.write(home / CHOSEN, json.dumps([str(files.ca), str(files.certificate), str(files.key)]).encode())
    elif (home / CHOSEN).exists():
        (home / CHOSEN).unlink()  # this start has a CA of its own again
    if files is None and not (access.files.certificate.exists() and access.files.ca.exists()):
        certificates.init(home, wanted)
    if not access.credential.exists():
        private.write(access.credential, secrets.token_urlsafe(32).encode() + b"\n")
    return access


def existing(home: Path) -> Access:
    """Return what a server's home holds, for a command beside it. Raises SecretError where there is nothing."""
    files = Files.inside(home)
    if (home / CHOSEN).exists():
        files = Files(*map(Path, json.loads((home / CHOSEN).read_text())))
    if not files.ca.exists():
        raise SecretError(f"there is no server in {home.parent} yet. Start it with `fl server`, or `fl certs init`.")
    return Access(home, files)


def given(certificate: Path | None, key: Path | None, ca: Path | None) -> Files | None:
    """Return somebody else's certificate files, None where none are given. Raises SecretError where some are."""
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None or ca is None:
        raise SecretError("--certificate, --key and --ca go together: give all three, or none for a CA of our own.")
    return Files(*(path.expanduser().resolve() for path in (ca, certificate, key)))


def enrolment_token(access: Access, *, uses: int, seconds: float, labels: Labels | None = None) -> Token:
    """Make a token that admits `uses` clients to this server."""
    token = Token.new(access.files.fingerprint)
    registry = Registry(access.home)
    try:
        registry.add_token(token, uses=uses, seconds=seconds, labels=labels or {})
    finally:
        registry.close()
    return token


def control(access: Access, address: str) -> Control:
    """Return a client of the server's Control API, with the credential that lies in its home."""
    if access.insecure:
        return Control(address)
    return connect(address, access.files.ca, access.credential)


def connect(address: str, ca: Path, credential: Path) -> Control:
    """Return a client of a Control API, with a CA certificate and a credential from files. Raises SecretError."""
    secret = private.read(credential, "the credential of Control").decode("ascii", "replace").strip()
    return Control(address, root_certificates=certificates.read_public(ca), credential=secret)


def own_names(host: str) -> list[str]:
    """Return what clients elsewhere may call this machine by, where the server listens on `host`."""
    if host.strip("[]") not in ANY:
        return [] if host.strip("[]") in LOCAL_NAMES else [host.strip("[]")]
    names = [socket.gethostname(), *(_outward(*each) for each in _FAMILIES)]
    return [name for name in dict.fromkeys(names) if _usable(name)]


_FAMILIES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def _outward(family: socket.AddressFamily, elsewhere: str) -> str:
    """Return this machine's address on the way elsewhere. A UDP socket that is only connected sends nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def _usable(name: str) -> bool:
    try:
        return bool(normal(name))
    except SecretError:
        return False

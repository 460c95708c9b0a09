"""What says who may come in to one server: the files in its home, made and put right where they can be."""

import json
import logging
import secrets
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fl_common.errors import SecretError
from fl_common.trust import secret_files
from fl_common.trust.tokens import Token
from fl_server.access import certificates, client_registry, own_certificates
from fl_server.access.authority import normal
from fl_server.access.certificates import LOCAL_NAMES, Files
from fl_server.access.client_records import Labels
from fl_server.access.client_registry import Registry
from fl_server.superlink.execution.control import Control

log = logging.getLogger(__name__)

LOST_AFTER_SECONDS = 20.0
ANY = ("0.0.0.0", "::", "*")  # noqa: S104 - compared with, not bound to
CREDENTIAL = "control.credential"
SHORTEST = 32  # characters of a credential
CHOSEN = "certificates.json"  # where somebody else's certificates are, for the commands beside the server


@dataclass(frozen=True)
class Access:
    """`names` are what clients may call the server by; `insecure` turns all of it off.

    forget_after_seconds: of silence, after which a client is forgotten; 0: never.
    """

    home: Path
    files: Files
    names: tuple[str, ...] = LOCAL_NAMES
    insecure: bool = False
    lost_after_seconds: float = LOST_AFTER_SECONDS
    forget_after_seconds: float = 0.0

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
    forget_after_seconds: float = 0.0,
) -> Access:
    """Make what is missing in a server's home. `files` are somebody else's certificates. Raises SecretError."""
    secret_files.make_directory(home)
    wanted = tuple(dict.fromkeys(map(normal, [*names, *LOCAL_NAMES])))
    access = Access(home, files or Files.inside(home), wanted, insecure, lost_after_seconds, forget_after_seconds)
    if insecure:
        return access
    client_registry.examine(home)
    if files is not None:
        certificates.check(files)
        secret_files.write(home / CHOSEN, json.dumps([str(files.ca), str(files.certificate), str(files.key)]).encode())
    else:
        _take_care(access)
    _look_at_credential(access.credential)
    return access


def _take_care(access: Access) -> None:
    """Make, or put right, the CA and certificate of a server that is its own CA."""
    files, chosen = access.files, access.home / CHOSEN
    with secret_files.named(f"remove {chosen}"):
        chosen.unlink(missing_ok=True)  # this start has a CA of its own again
    if any(path.exists() for path in (files.ca, files.certificate, files.key, access.home / "ca.key")):
        own_certificates.renew(files, access.names)
    else:
        own_certificates.init(access.home, access.names)


def _look_at_credential(path: Path) -> None:
    """Make the credential where there is none, or an empty file. Raises SecretError where it is damaged."""
    made = not path.exists()
    if made or not (held := secret_files.read(path, "the credential of Control").strip()):
        if not made:
            log.warning("%s was empty: another credential was made. Copies of the earlier one are of no use.", path)
        secret_files.write(path, secrets.token_urlsafe(32).encode() + b"\n")
    elif len(held) < SHORTEST or not (held.isascii() and held.decode().isprintable()):
        raise SecretError(
            f"the credential of Control {path} is damaged: expected {SHORTEST} characters of text or more. Put it "
            f"back, or have the server make another when it starts: rm {path}"
        )


def existing(home: Path) -> Access:
    """Return what a server's home holds, for a command beside it. Raises SecretError where there is nothing."""
    files = Files.inside(home)
    if (home / CHOSEN).exists():
        files = _chosen(home / CHOSEN)
    elif files.ca_key is not None and files.ca_key.exists() and not files.ca.exists():
        raise SecretError(f"the CA's certificate {files.ca} is missing: `fl certs init` puts it right.")
    if not files.ca.exists():
        raise SecretError(f"there is no server in {home.parent} yet. Start it with `fl server`, or `fl certs init`.")
    return Access(home, files)


def _chosen(path: Path) -> Files:
    try:
        ca, certificate, key = map(Path, json.loads(certificates.read_public(path)))
    except (ValueError, TypeError):
        raise SecretError(
            f"{path} is damaged: expected the places of certificates. Start the server again, or run `fl certs init`."
        ) from None
    return Files(ca, certificate, key)


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
    with closing(Registry(access.home)) as known:
        known.add_token(token, uses=uses, seconds=seconds, labels=labels or {})
    return token


def control(access: Access, address: str) -> Control:
    """Return a client of the server's Control API, with the credential that lies in its home."""
    if access.insecure:
        return Control(address)
    return connect(address, access.files.ca, access.credential)


def connect(address: str, ca: Path, credential: Path) -> Control:
    """Return a client of a Control API, with a CA certificate and a credential from files. Raises SecretError."""
    secret = secret_files.read(credential, "the credential of Control").decode("ascii", "replace").strip()
    return Control(address, root_certificates=certificates.read_public(ca), credential=secret)


def own_names(host: str) -> list[str]:
    """Return what clients elsewhere may call this machine by, where the server listens on `host`."""
    if host.strip("[]") not in ANY:
        return [] if host.strip("[]") in LOCAL_NAMES else [host.strip("[]")]
    names = [*(_outward(*each) for each in _FAMILIES), socket.gethostname()]
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

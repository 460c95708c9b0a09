"""Certificates of a server that is its own CA: made, put right from what is left of them, and renewed when due.

What can be made again from the CA is; what cannot is refused, with the command that ends it.
"""

import datetime
import fcntl
import ipaddress
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fl_common.errors import SecretError
from fl_common.trust import secret_files
from fl_server.access import authority, certificates
from fl_server.access.authority import BACKDATE, Authority, is_issued_by, normal
from fl_server.access.certificates import Certificate, Files, day, described, read_public

log = logging.getLogger(__name__)

CA_DAYS = 3650
SERVER_DAYS = 90
RENEW_SHARE = 1 / 3  # of its lifetime: what is left when a server certificate is renewed
MOST_ADDRESSES = 50  # of earlier certificates that the next one keeps
NEW_CA = "`fl certs init --new-ca` makes another CA: each client needs a new token then (`fl enroll token`)"
BACK = f"Put it back from a backup. Without one, {NEW_CA}."


def init(
    home: Path, names: Sequence[str], *, days: int = SERVER_DAYS, ca_days: int = CA_DAYS, new_ca: bool = False
) -> Files:
    """Make a CA where there is none, or a `new_ca`, and a server certificate for `names`. Returns the files."""
    files = Files.inside(home)
    secret_files.make_directory(home)
    with _one_at_a_time(home):
        fresh = new_ca or not any(each.exists() for each in (files.ca, files.key, files.certificate, home / "ca.key"))
        _issue(files, _made(files, ca_days) if fresh else _authority(files), names, days)
    return files


def issue(files: Files, names: Sequence[str], *, days: int = SERVER_DAYS) -> Certificate:
    """Make a new server key and certificate from the CA. Raises SecretError where its key is not here."""
    if files.ca_key is None:
        raise SecretError(f"the CA of {files.certificate} is somebody else's. Ask them for a new certificate.")
    with _one_at_a_time(files.ca.parent):
        _issue(files, _authority(files), names, days)
    return certificates.describe(files.certificate)


def renew_if_due(files: Files, names: Sequence[str] = (), *, now: datetime.datetime | None = None) -> str:
    """Make the server certificate anew before it expires, for names it lacks, or where it is damaged or of another CA.

    Returns why, "" where it need not be. Raises SecretError where it cannot be used, and the CA's key is not here.
    """
    moment = now or authority.now()
    if files.ca_key is None:
        certificates.check(files, now=now)
        return ""
    with _one_at_a_time(files.ca.parent):
        ours = _authority(files, moment)
        found = _usable(files, moment)
        why = found if isinstance(found, str) else _reason(found, names, moment)
        if why and ours is None and isinstance(found, str):
            raise SecretError(f"the server's certificate {files.certificate} cannot be used: {why}. {_absent(files)}")
        if why and ours is not None:
            _issue(files, ours, *_wanted(files, found, names))
            return why
    if isinstance(found, Certificate) and why:
        log.warning("%s is good until %s, and is not renewed. %s", files.certificate, day(found.ends), _absent(files))
    return ""


def renew(files: Files, names: Sequence[str] = ()) -> None:
    """Make the server certificate anew where `renew_if_due` would, and log why. Raises SecretError."""
    if why := renew_if_due(files, names):
        log.warning("the server's certificate was made anew (%s); clients notice nothing", why)


def _reason(found: Certificate, names: Sequence[str], now: datetime.datetime) -> str:
    missing = [name for name in names if not found.covers([name])]
    if missing:
        return f"it was not good for {', '.join(missing)}"
    return "" if found.left(now) > RENEW_SHARE else "it was due"


def _wanted(files: Files, found: Certificate | str, names: Sequence[str]) -> tuple[list[str], int]:
    """Return the names of the next certificate, which keeps those of the last, and its days."""
    try:
        before = found if isinstance(found, Certificate) else certificates.describe(files.certificate)
    except SecretError:
        return list(map(normal, names or certificates.LOCAL_NAMES)), SERVER_DAYS
    earlier = _kept(before.names) if any(not before.covers([name]) for name in names) else before.names
    days = round((before.ends - before.begins - BACKDATE) / datetime.timedelta(days=1))
    return list(dict.fromkeys([*map(normal, names), *earlier])), max(1, days)


def _usable(files: Files, now: datetime.datetime) -> Certificate | str:
    """Return the server's certificate, or why it cannot be used. Puts its copy right."""
    if not files.key.exists():
        return f"{files.key.name} was missing"
    key, own = authority.parts(secret_files.read(files.key, "the server's key"))
    try:
        chain = own or files.certificate.read_bytes()
        if not authority.go_together(key, chain):
            return f"{files.key.name} was the key of another certificate"
        certificate = x509.load_pem_x509_certificate(chain)
        found = described(certificate)
        if own:
            _put_right(files.certificate, own, files.key)
    except (OSError, ValueError):
        return f"{files.key.name} or {files.certificate.name} was missing or damaged"
    if not is_issued_by(certificate, x509.load_pem_x509_certificate(read_public(files.ca))):
        return "it was of another CA"
    if found.begins > now:
        return f"it begins only on {day(found.begins)}"
    return found if now <= found.ends else f"it expired on {day(found.ends)}"


def _authority(files: Files, now: datetime.datetime | None = None) -> Authority | None:
    """Return the CA; None where its key is kept elsewhere. Raises SecretError where it cannot be used."""
    key_file = files.ca_key or files.ca
    if not key_file.exists():
        _in_time(_ca_alone(files), files, now)
        return None
    key, own = authority.parts(secret_files.read(key_file, "the CA's key"))
    try:
        secret, shown = authority.key_of(key), _public(files.ca)
    except ValueError:
        raise SecretError(f"the CA's key {key_file} is damaged: expected PEM. {BACK}") from None
    held = _certificate(own)
    if (certificate := held or shown) is None:
        raise SecretError(
            f"the CA's certificate {files.ca} is missing or damaged. Put it back from a backup, or from any client, "
            f"which has a copy in its state directory. Without one, {NEW_CA}."
        )
    ours = Authority(certificate, secret)
    stranger = shown is not None and shown != certificate and not _signed(files, ours)
    if stranger or secret.public_key() != certificate.public_key():
        raise SecretError(
            f"{key_file} and {files.ca} are of two CAs. Put back the one that clients trust, or: {NEW_CA}."
        )
    _in_time(certificate, files, now)
    if held is None:
        secret_files.write(key_file, ours.secret)
    _put_right(files.ca, ours.public, key_file)
    return ours


def _ca_alone(files: Files) -> x509.Certificate:
    if not files.ca.exists():
        raise SecretError(f"the CA of this server is gone: {files.ca_key} and {files.ca} are missing. {BACK}")
    certificate = _public(files.ca)
    if certificate is None:
        raise SecretError(f"the CA's certificate {files.ca} is damaged: expected PEM. {BACK}")
    return certificate


def _in_time(certificate: x509.Certificate, files: Files, now: datetime.datetime | None) -> None:
    moment = now or authority.now()
    if moment > certificate.not_valid_after_utc:
        raise SecretError(f"the CA {files.ca} expired on {day(certificate.not_valid_after_utc)}: {NEW_CA}.")
    if moment < certificate.not_valid_before_utc:
        raise SecretError(
            f"the CA {files.ca} begins only on {day(certificate.not_valid_before_utc)}, and the clock of this machine "
            f"says {day(moment)}. Set the clock right; or {NEW_CA}."
        )


def _signed(files: Files, ours: Authority) -> bool:
    """Say whether the server's certificate is of this CA: then it is the other file that was exchanged."""
    for path in (files.key, files.certificate):
        try:
            chain = authority.parts(path.read_bytes())[1]
            if chain and is_issued_by(x509.load_pem_x509_certificate(chain), ours.certificate):
                return True
        except (OSError, ValueError):
            continue
    return False


def _public(path: Path) -> x509.Certificate | None:
    """Return the certificate in a file; None where it is missing or damaged."""
    try:
        return _certificate(path.read_bytes())
    except OSError:
        return None


def _certificate(pem: bytes) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None


def _put_right(copy: Path, content: bytes, source: Path) -> None:
    """Write a certificate that stands in `source` to where others read it, unless it is there."""
    try:
        if copy.read_bytes() == content:
            return
        what = "was damaged or another"
    except FileNotFoundError:
        what = "was missing"
    except OSError as error:
        raise SecretError(f"cannot read {copy}: {error.strerror}") from None
    secret_files.write(copy, content, mode=0o644)
    log.warning("%s %s: it was made again from %s", copy, what, source.name)


def _made(files: Files, days: int) -> Authority:
    made = Authority.new(days)
    key, own = authority.parts(files.ca_key.read_bytes()) if files.ca_key and files.ca_key.exists() else (b"", b"")
    if key and not own and (before := _public(files.ca)):  # of an earlier release: should this be stopped half-way
        secret_files.write(files.ca_key or files.ca, key + before.public_bytes(serialization.Encoding.PEM))
    with secret_files.named(f"remove {files.ca}"):
        files.ca.unlink(missing_ok=True)  # of an earlier CA: what is stopped from here on has one of the two, whole
    secret_files.write(files.ca_key or files.ca, made.secret)
    secret_files.write(files.ca, made.public, mode=0o644)
    return made


def _issue(files: Files, ours: Authority | None, names: Sequence[str], days: int) -> None:
    if ours is None:
        raise SecretError(_absent(files))
    content = ours.sign(names, days)
    secret_files.write(files.key, content)
    secret_files.write(files.certificate, authority.parts(content)[1], mode=0o644)


def _absent(files: Files) -> str:
    return f"The key of the CA, {files.ca_key}, is not here. Put it back and run `fl certs init`; or: {NEW_CA}."


def _kept(names: Sequence[str]) -> list[str]:
    """Return an earlier certificate's names, but of its addresses the newest only: each new pod brings another."""
    addresses = [name for name in names if _is_address(name)]
    return [name for name in names if name not in addresses[MOST_ADDRESSES:]]


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """Keep other processes from making certificates in a home."""
    with secret_files.named(f"lock {home}"):
        descriptor = os.open(home, os.O_RDONLY)
    try:
        with secret_files.named(f"lock {home}"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""The key of the user who makes runs: a file of the user's own, made with the first run. Runs are sealed under it."""

import hmac
import os
import secrets
from pathlib import Path

from fl_common.errors import SecretError
from fl_common.trust import secret_files

VARIABLE = "FL_RUN_KEY"
BYTES = 32


def place() -> Path:
    """Return the file of the key: that of FL_RUN_KEY, else ~/.parterre/run.key. Raises SecretError without a home."""
    try:
        path = Path(os.environ.get(VARIABLE) or Path.home() / ".parterre" / "run.key")
    except RuntimeError:
        raise SecretError(f"this user has no home folder for the key of runs. Name a file with {VARIABLE}.") from None
    if not path.is_absolute():  # a run's processes are started in other folders
        raise SecretError(f"{VARIABLE} must be an absolute path; got {path}. Set it to {path.absolute()}.")
    return path


def made() -> bytes:
    """Return the key, made where there is none: of two processes that make one, both return the same."""
    path = place()
    if not path.exists():
        if not path.parent.exists():
            secret_files.make_directory(path.parent)
        _make(path)
    return _read(path)


def mac(content: bytes, key: bytes) -> str:
    """Return the HMAC-SHA-256 of `content`, in hexadecimal."""
    return hmac.new(key, content, "sha256").hexdigest()


def is_mac(content: bytes, given: str) -> bool:
    """Say whether `given` is the HMAC of `content` under this user's key; False where there is no key."""
    try:
        return hmac.compare_digest(mac(content, _read(place())).encode(), given.encode())
    except SecretError:
        return False


def _make(path: Path) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    secret_files.write(new, secrets.token_hex(BYTES).encode() + b"\n")
    try:
        os.link(new, path)
    except FileExistsError:
        pass  # another process was first, and its key is read
    except OSError as error:
        raise SecretError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        new.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    key = secret_files.read(path, "the key of runs").strip()
    if len(key) != 2 * BYTES:
        raise SecretError(
            f"the key of runs in {path} is damaged. Remove it: a new one is made, and runs of before ask for --trust."
        )
    return key

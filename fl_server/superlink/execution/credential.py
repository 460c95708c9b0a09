"""Control's credential: a random text in a file, shown by whoever submits runs."""

import hashlib
import hmac
import logging
from collections.abc import Sequence
from pathlib import Path

from flwr.common.constant import ACCESS_TOKEN_KEY
from flwr.supercore.auth.typing import AccountAuthCredentials, AccountAuthLoginDetails, AccountInfo
from flwr.supercore.utils import get_metadata_str
from flwr.superlink.auth_plugin import ControlAuthnPlugin

log = logging.getLogger(__name__)


class CredentialPlugin(ControlAuthnPlugin):
    """Lets into Control who shows the credential, in the header in which Flower's own tools send an access token."""

    def __init__(self, file: Path, account: AccountInfo) -> None:
        self._file = file
        self._account = account

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Compare in constant time. The file is read each time, so that a new credential holds at once."""
        shown = get_metadata_str(metadata, ACCESS_TOKEN_KEY) or ""
        try:
            held = self._file.read_bytes().strip()
        except OSError as error:
            log.error("nobody is let into Control: cannot read %s: %s", self._file, error.strerror or error)
            return False, None
        good = hmac.compare_digest(_digest(shown.encode()), _digest(held))
        return (True, self._account) if good and shown else (False, None)

    def refresh_tokens(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[Sequence[tuple[str, str | bytes]] | None, AccountInfo | None]:
        """There is nothing to refresh."""
        return None, None

    def get_login_details(self) -> AccountAuthLoginDetails | None:
        """There is no log-in: the credential is a file."""
        return None

    def get_auth_tokens(self, device_code: str) -> AccountAuthCredentials | None:
        """There is no log-in: the credential is a file."""
        return None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()

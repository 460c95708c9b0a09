"""The server's init container: what clients and runs need to know goes from the server's volume into two Secrets.

CA, certificate and credential of Control are made on the volume where they are missing. A token is made where the
Secret has none that is good. It may get and patch these two Secrets, by name, and nothing else.
"""

import base64
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from fl_common.errors import ParterreError
from fl_common.trust import secret_files
from fl_common.trust.tokens import Token
from fl_server.access import certificates, home_files
from fl_server.access.client_registry import Registry

USES, SECONDS = 1_000_000, 10 * 365 * 86_400.0  # `kubectl scale` must work for as long as the release lives
KUBERNETES = Path("/var/run/secrets/kubernetes.io/serviceaccount")
STORE = Path(os.environ["FL_STORE"])


def secret(name: str, changes: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """Return the data of a Secret, after writing `changes` into it."""
    namespace, bearer = ((KUBERNETES / each).read_text() for each in ("namespace", "token"))
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    encoded = {key: base64.b64encode(value).decode() for key, value in (changes or {}).items()}
    request = urllib.request.Request(
        f"https://{host}:{port}/api/v1/namespaces/{namespace}/secrets/{name}",
        method="PATCH" if changes else "GET",
        data=json.dumps({"data": encoded}).encode() if changes else None,
        headers={"Authorization": f"Bearer {bearer}", "Content-Type": "application/merge-patch+json"},
    )
    trusted = ssl.create_default_context(cafile=str(KUBERNETES / "ca.crt"))
    own = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))  # the cluster is no way out
    with urllib.request.build_opener(*own).open(request, timeout=30) as answer:
        data = json.load(answer).get("data") or {}
    return {key: base64.b64decode(value) for key, value in data.items()}


def own_certificate() -> home_files.Files | None:
    """Return the mounted certificate that is not of the server's own making, where there is one."""
    paths = [os.environ.get(name) for name in ("FL_CERTIFICATE", "FL_KEY", "FL_CA")]
    return home_files.given(*(Path(path) if path else None for path in paths))


def good(text: bytes, entry: home_files.Access) -> bool:
    """Say whether a published token still lets clients in to this server."""
    try:
        token = Token.parse(text.decode("ascii", "replace"))
    except ParterreError:
        return False
    state = {each.identity: each.state(time.time()) for each in Registry(entry.home).tokens()}.get(token.identity)
    return state == "good" and token.fingerprint == entry.files.fingerprint


def main() -> None:
    """Make what is missing and publish it."""
    names = os.environ["FL_SERVER_NAMES"].split(",")
    entry = home_files.prepare(STORE / ".superlink", names=names, files=own_certificate())
    ca = certificates.read_public(entry.files.ca)
    enroll, control = os.environ["ENROLL_SECRET"], os.environ["CONTROL_SECRET"]
    if not good(secret(enroll).get("token", b""), entry):
        token = home_files.enrolment_token(entry, uses=USES, seconds=SECONDS)
        secret(enroll, {"token": token.text.encode(), "ca.crt": ca})
        print(f"a new enrolment token ({token.identity}) is in Secret {enroll}")
    secret(control, {"credential": secret_files.read(entry.credential, "the credential of Control"), "ca.crt": ca})
    print(f"the credential of Control is in Secret {control}")


try:
    main()
except ParterreError as error:
    raise SystemExit(str(error)) from None
except urllib.error.HTTPError as error:
    raise SystemExit(f"Kubernetes refused: {error.code} {error.read().decode(errors='replace')[:500]}") from None

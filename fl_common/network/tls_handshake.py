"""A TLS handshake with a server, to find out what gRPC does not say: why it fails, and whom the server says it is."""

import ssl

from cryptography import x509

from fl_common.errors import AccessError, NetworkError
from fl_common.network.addresses import dial

CONNECT_SECONDS = 10.0
OTHER_NAME = (62, 64)  # OpenSSL's codes: X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
OTHER_CA = (18, 19, 20, 21)


def diagnose(address: str, authority: bytes | None) -> str:
    """Say why a TLS handshake with a server fails, "" where it does not or where nobody answers.

    `authority` is None for a plaintext connection that failed. gRPC tells only that it failed.
    """
    try:
        context = ssl.create_default_context(cadata=authority.decode("ascii")) if authority else _unverified()
        _shake(address, context)
    except ssl.SSLCertVerificationError as error:
        return _unverifiable(address, error)
    except ssl.SSLError as error:
        return f"the server at {address} speaks no TLS ({error.reason})" if authority else ""
    except OSError:
        return ""
    return "" if authority else f"the server at {address} speaks TLS; this client was told not to (--insecure)"


def shown_certificate(address: str) -> bytes:
    """Return the certificate (PEM) that a server shows, unverified. Raises AccessError or NetworkError."""
    try:
        der = _shake(address, _unverified())
    except ssl.SSLError as error:
        raise AccessError(f"the server at {address} speaks no TLS: {error.reason}") from None
    except OSError as error:
        raise NetworkError(f"no server answers at {address}: {error.strerror or error}") from None
    return ssl.DER_cert_to_PEM_cert(der).encode()


def names_in(certificate: bytes) -> list[str]:
    """Return the names and addresses that a certificate (PEM) is for."""
    try:
        extensions = x509.load_pem_x509_certificate(certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    return [str(each.value) for each in names]


def _unverifiable(address: str, error: ssl.SSLCertVerificationError) -> str:
    what = f"the certificate of the server at {address}"
    if error.verify_code in OTHER_NAME:
        try:
            names = ", ".join(names_in(shown_certificate(address)))
        except NetworkError:
            names = ""
        return (
            f"{what} is not for that name: it is for {names or 'none'}. Use one of these names, or start the server "
            "with this one, too: `fl server --name`."
        )
    if error.verify_code in OTHER_CA:
        return (
            f"{what} cannot be verified: {error.verify_message}. It is of another CA than the one known here: is it "
            "the right server, and the right one of its ports? (Fleet, for clients: 9092; Control, for runs: 9093)"
        )
    return f"{what} cannot be verified: {error.verify_message}"


def _shake(address: str, context: ssl.SSLContext) -> bytes:
    context.set_alpn_protocols(["h2"])
    host = address.rpartition(":")[0].strip("[]")
    with dial(address, CONNECT_SECONDS) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
        shown: bytes | None = secure.getpeercert(binary_form=True)
        return shown or b""


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

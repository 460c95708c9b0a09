"""Enrolment tokens: their text, and what they never show; keys and the ids of clients."""

import contextlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_common.errors import SecretError
from fl_common.trust import keys
from fl_common.trust.tokens import Token

FINGERPRINT = "ab" * 32
KEY = keys.generate()


def test_a_token_is_what_its_text_says():
    token = Token.new(FINGERPRINT)
    assert Token.parse(token.text) == token
    assert Token.parse(f"  {token.text}\n") == token
    assert len(token.secret) == 32
    assert Token.new(FINGERPRINT).secret != token.secret


def test_neither_its_repr_nor_its_digest_shows_the_secret():
    token = Token.new(FINGERPRINT)
    assert token.text.split(".")[2] not in repr(token)
    assert repr(token.secret) not in repr(token)
    assert token.digest != token.secret


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_any_other_text_is_an_error_that_does_not_quote_it(text):
    with pytest.raises(SecretError, match="damaged") as caught:
        Token.parse(text)
    assert len(text) < 8 or text not in str(caught.value)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_token_is_never_taken_for_the_one_it_was(data):
    token = Token.new(FINGERPRINT)
    place = data.draw(st.integers(0, len(token.text) - 1))
    character = data.draw(st.characters(codec="ascii"))
    damaged = token.text[:place] + character + token.text[place + 1 :]
    with contextlib.suppress(SecretError):
        assert Token.parse(damaged) != token or damaged.strip() == token.text or _same_bits(damaged, token.text)


def _same_bits(one, other):
    """The last character of base64 text has bits that count for nothing."""
    differing = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return len(differing) == 1 and (differing[0] == len(other) - 1 or other[differing[0] + 1] == ".")


def test_a_client_is_the_same_however_its_public_key_is_written():
    pem = keys.public_pem(KEY.public_key())
    ssh = KEY.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    spelled = pem.replace(b"\n", b"\r\n") + b"\n\n"
    assert keys.client_id(pem) == keys.client_id(ssh) == keys.client_id(spelled)
    assert keys.client_id(keys.public_pem(keys.generate().public_key())) != keys.client_id(pem)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()], ids=["P-256", "Ed25519"]
)
def test_a_key_of_another_kind_is_refused(key):
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SecretError, match="P-384"):
        keys.client_id(pem)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(SecretError):
        keys.read_public(text)
    with pytest.raises(SecretError):
        keys.read_private(text, "a file")


def test_a_signature_proves_one_content_by_one_key():
    pem = keys.public_pem(KEY.public_key())
    signature = keys.sign(KEY, b"content")
    assert keys.is_signed(pem, b"content", signature)
    assert not keys.is_signed(pem, b"other", signature)
    assert not keys.is_signed(keys.public_pem(keys.generate().public_key()), b"content", signature)
    assert not keys.is_signed(pem, b"content", b"")
    assert not keys.is_signed(b"no key", b"content", signature)


def test_flowers_own_functions_read_our_keys():
    from flwr.supercore.primitives.asymmetric import bytes_to_private_key, public_key_to_bytes

    private = bytes_to_private_key(keys.private_pem(KEY))
    assert public_key_to_bytes(private.public_key()) == keys.public_pem(KEY.public_key())

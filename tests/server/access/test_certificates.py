"""Certificates: for which names, until when, renewed when due, and checked before they are used."""

import datetime
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509

from fl_common.errors import SecretError
from fl_server.access import authority, certificates, home_files, own_certificates
from fl_server.access.certificates import Files

NAMES = ["fl.example.org", "192.0.2.7", "2001:db8::7", "localhost"]


def later(days):
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


def made(path, **options):
    return own_certificates.init(path, NAMES, **options)


def test_a_certificate_is_for_the_names_and_addresses_asked_for_and_as_long(tmp_path):
    files = made(tmp_path, days=30)
    found = certificates.check(files)
    assert set(found.names) == set(NAMES)
    assert found.covers(["FL.Example.ORG", "[2001:db8:0::7]"])
    assert not found.covers(["elsewhere.example.org"])
    assert 29.9 < (found.ends - datetime.datetime.now(datetime.UTC)) / datetime.timedelta(days=1) <= 30
    for secret in (files.key, files.ca_key):
        assert secret.stat().st_mode & 0o077 == 0
    assert tmp_path.stat().st_mode & 0o077 == 0


def test_openssl_verifies_it_for_a_tls_server(tmp_path):
    files = made(tmp_path)
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "fl.example.org",
         "-CAfile", str(files.ca), str(files.certificate)], capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_making_one_again_keeps_the_ca_so_that_clients_notice_nothing(tmp_path):
    files = made(tmp_path)
    before = (files.fingerprint, certificates.describe(files.certificate).serial)
    made(tmp_path)
    assert files.fingerprint == before[0]
    assert certificates.describe(files.certificate).serial != before[1]


def test_a_ca_that_was_removed_is_not_made_anew_in_silence_but_by_a_command(tmp_path):
    first = home_files.prepare(tmp_path).files
    before = first.fingerprint
    for path in (first.ca, first.ca_key):
        path.unlink()
    with pytest.raises(SecretError, match=r"the CA of this server is gone.*`fl certs init --new-ca`"):
        home_files.prepare(tmp_path)
    with pytest.raises(SecretError, match="--new-ca"):
        made(tmp_path)
    files = made(tmp_path, new_ca=True)
    assert files.fingerprint != before
    home_files.prepare(tmp_path)
    ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    x509.load_pem_x509_certificate(files.certificate.read_bytes()).verify_directly_issued_by(ca)


def test_the_fingerprint_is_the_one_that_openssl_shows(tmp_path):
    files = made(tmp_path)
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(files.ca), "-noout", "-fingerprint", "-sha256"],
        capture_output=True, text=True, timeout=300, check=True,
    ).stdout  # fmt: skip
    assert shown.strip().partition("=")[2].replace(":", "").lower() == files.fingerprint


def test_it_is_renewed_in_the_last_third_of_its_lifetime_with_the_same_names(tmp_path):
    files = made(tmp_path, days=90)
    before = certificates.describe(files.certificate)
    assert own_certificates.renew_if_due(files, now=later(59)) == ""
    assert certificates.describe(files.certificate) == before
    assert own_certificates.renew_if_due(files, now=later(61)) == "it was due"
    after = certificates.check(files)
    assert (after.names, after.serial != before.serial) == (before.names, True)


def test_it_is_renewed_for_a_new_name_and_keeps_the_old_ones(tmp_path):
    files = made(tmp_path)
    assert own_certificates.renew_if_due(files, ["fl.example.org"]) == ""
    assert own_certificates.renew_if_due(files, ["new.example.org"]) == "it was not good for new.example.org"
    assert certificates.check(files).covers(["new.example.org", *NAMES])


def test_addresses_of_earlier_machines_do_not_make_it_grow_for_ever(tmp_path):
    files = made(tmp_path)
    before = certificates.describe(files.certificate).names
    for number in range(1, 60):
        own_certificates.renew_if_due(files, [f"10.0.0.{number}", "fl.example.org"])
    names = certificates.check(files).names
    assert (names[0], "10.0.0.59" in names, "10.0.0.1" in names) == ("10.0.0.59", True, False)
    assert len(names) <= own_certificates.MOST_ADDRESSES + len(before) + 2
    assert {name for name in before if not name[0].isdigit() and name != "::1"} <= set(names)
    own_certificates.renew_if_due(files, now=later(85))
    assert certificates.describe(files.certificate).names == names


def test_an_expired_one_is_renewed_and_without_the_cas_key_named(tmp_path):
    files = made(tmp_path, days=1)
    with pytest.raises(SecretError, match=r"server\.crt expired on \d{4}-"):
        certificates.check(files, now=later(2))
    with pytest.raises(SecretError, match="expired on"):
        own_certificates.renew_if_due(Files(files.ca, files.certificate, files.key), now=later(2))
    assert own_certificates.renew_if_due(files, now=later(2)).startswith("it expired on ")


def test_somebody_elses_certificate_is_used_as_it_is(tmp_path):
    theirs = made(tmp_path / "theirs")
    files = home_files.given(theirs.certificate, theirs.key, theirs.ca)
    entry = home_files.prepare(tmp_path / "home", files=files, names=["unknown.example.org"])
    assert certificates.check(entry.files) == certificates.describe(theirs.certificate)
    assert own_certificates.renew_if_due(entry.files) == ""
    assert not (tmp_path / "home" / "ca.key").exists()
    assert home_files.existing(tmp_path / "home").files.fingerprint == theirs.fingerprint
    with pytest.raises(SecretError, match="somebody else's"):
        own_certificates.issue(entry.files, NAMES)
    again = home_files.prepare(tmp_path / "home")  # and given none, the server has a CA of its own
    assert again.files.fingerprint != theirs.fingerprint
    assert home_files.existing(tmp_path / "home").files == again.files


def test_files_that_do_not_go_together_are_named(tmp_path):
    one, other = made(tmp_path / "one"), made(tmp_path / "other")
    with pytest.raises(SecretError, match="do not go together"):
        certificates.check(Files(one.ca, one.certificate, other.key))
    with pytest.raises(SecretError, match=r"--certificate, --key and --ca go together"):
        home_files.given(one.certificate, one.key, None)


def test_a_key_that_others_can_read_is_refused(tmp_path):
    files = made(tmp_path)
    files.key.chmod(0o644)
    with pytest.raises(SecretError, match="can be read by others"):
        certificates.check(files)


@pytest.mark.parametrize("name", ["", "  ", "a" * 70 + ".org", "..", "exa mple.org", "fl.example.org:9092"])
def test_what_is_no_name_is_an_error(name):
    with pytest.raises(SecretError, match="expected a DNS name or an IP address"):
        authority.normal(name)


def test_names_are_compared_in_one_form():
    assert authority.normal("[::1]") == "::1"
    assert authority.normal("0:0::1") == "::1"
    assert authority.normal("FL.Example.org") == "fl.example.org"
    assert authority.normal("bücher.example") == "xn--bcher-kva.example"


def test_a_server_for_all_is_called_by_this_machines_names():
    assert home_files.own_names("127.0.0.1") == []
    assert home_files.own_names("192.0.2.9") == ["192.0.2.9"]
    assert all(authority.normal(name) for name in home_files.own_names("0.0.0.0"))


def test_several_at_once_make_one_ca_and_a_key_and_certificate_that_go_together(tmp_path):
    start = threading.Barrier(8)

    def make(_):
        start.wait()
        return made(tmp_path).fingerprint

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 1
    files = Files.inside(tmp_path)
    certificates.check(files)
    ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    x509.load_pem_x509_certificate(files.certificate.read_bytes()).verify_directly_issued_by(ca)


def test_python_takes_the_pair(tmp_path):
    files = made(tmp_path)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)

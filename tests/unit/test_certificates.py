"""The certificates of hosts: whom they name, who trusts them, and when they are made anew."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509

from provision.core.errors import ProvisionError
from provision.hosts.certificates import Authority, trusting

NAMES = ("192.0.2.11", "db1", "localhost", "127.0.0.1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority("prod", tmp_path / "ca.pem", tmp_path / "ca.key", tmp_path / "ca.pem")
    made.ensure()
    return made


def test_authority_is_made_once_and_its_key_is_its_owners_alone(authority: Authority) -> None:
    before = authority.certificate.read_bytes()
    assert not authority.ensure()
    assert authority.certificate.read_bytes() == before
    assert stat.S_IMODE(authority.key.stat().st_mode) == 0o600


def test_certificate_names_what_the_host_is_reached_by(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue("db1", NAMES))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"db1", "localhost"}
    assert set(names.get_values_for_type(x509.IPAddress)) == {
        ipaddress.ip_address("192.0.2.11"),
        ipaddress.ip_address("127.0.0.1"),
    }


def test_a_client_trusts_the_host_by_address_and_by_name_and_no_other_authority(
    authority: Authority, tmp_path: Path
) -> None:
    pem = tmp_path / "db1.pem"
    pem.write_bytes(authority.issue("db1", NAMES))
    context = trusting(authority.trusted)
    assert _handshake(pem, context, "127.0.0.1") is None
    assert _handshake(pem, context, "db1") is None
    assert "db9" in str(_handshake(pem, context, "db9"))
    other = Authority("other", tmp_path / "o.pem", tmp_path / "o.key", tmp_path / "o.pem")
    other.ensure()
    assert "verify failed" in str(_handshake(pem, trusting(other.trusted), "127.0.0.1"))


def test_host_certificate_is_kept_while_it_serves(authority: Authority, tmp_path: Path) -> None:
    kept = tmp_path / "db1.pem"
    first = authority.host_certificate(kept, "db1", NAMES)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert authority.host_certificate(kept, "db1", NAMES) == first
    assert authority.host_certificate(kept, "db1", NAMES, renew=True) != first
    second = kept.read_bytes()
    assert authority.host_certificate(kept, "db1", (*NAMES, "db1.example")) != second
    kept.write_bytes(b"not a certificate")
    assert x509.load_pem_x509_certificate(
        authority.host_certificate(kept, "db1", NAMES)
    ).issuer.rfc4514_string()


def test_host_certificate_of_an_earlier_authority_is_replaced(authority: Authority, tmp_path: Path) -> None:
    kept = tmp_path / "db1.pem"
    first = authority.host_certificate(kept, "db1", NAMES)
    authority.certificate.unlink()
    authority.key.unlink()
    authority.ensure()
    assert authority.host_certificate(kept, "db1", NAMES) != first


def test_half_an_authority_is_not_replaced_behind_its_owners_back(authority: Authority) -> None:
    authority.key.unlink()
    with pytest.raises(ProvisionError, match="is lost"):
        authority.ensure()


def test_authority_of_the_users_own_is_used_and_trusted(authority: Authority, tmp_path: Path) -> None:
    own = Authority("prod", authority.certificate, authority.key, tmp_path / "state" / "ca.pem")
    own.ensure()
    pem = tmp_path / "db1.pem"
    pem.write_bytes(own.issue("db1", NAMES))
    assert _handshake(pem, trusting(tmp_path / "state" / "ca.pem"), "db1") is None


def test_missing_authority_of_the_users_own_is_named(tmp_path: Path) -> None:
    own = Authority("prod", tmp_path / "mine.pem", tmp_path / "mine.key", tmp_path / "ca.pem")
    with pytest.raises(ProvisionError, match="tls_ca_file"):
        own.ensure()


def test_key_that_belongs_to_another_certificate_is_named(authority: Authority, tmp_path: Path) -> None:
    other = Authority("other", tmp_path / "o.pem", tmp_path / "o.key", tmp_path / "o.pem")
    other.ensure()
    mixed = Authority("prod", authority.certificate, other.key, tmp_path / "state.pem")
    with pytest.raises(ProvisionError, match="is not the key of"):
        mixed.ensure()


def _handshake(pem: Path, client: ssl.SSLContext, name: str) -> ssl.SSLError | None:
    """A client's and a server's greeting over a pair of sockets; what the client objects to."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name):
            return None
    except ssl.SSLError as problem:
        return problem
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize(
    ("usage", "reason"),
    [(False, "CA cert does not include key usage extension"), (True, "")],
    ids=["without-key-usage", "with-it"],
)
def test_a_users_authority_that_any_python_would_refuse_is_refused_at_once_by_name(
    tmp_path: Path, usage: bool, reason: str
) -> None:
    certificate, key, trusted = (tmp_path / name for name in ("own.pem", "own.key", "ca.pem"))
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=own", "-days", "9"),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *(("-addext", "keyUsage=critical,keyCertSign,cRLSign") if usage else ()),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    authority = Authority("prod", certificate, key, trusted)
    if usage:
        authority.ensure()
        assert trusted.read_bytes() == certificate.read_bytes()
        return
    with pytest.raises(ProvisionError) as failure:
        authority.ensure()
    assert f"{certificate} is refused: {reason}" in failure.value.cause
    assert not trusted.exists()
    # The remedy is typed, and helps.
    command = failure.value.remedy.partition("\n")[2]
    assert subprocess.run(["sh", "-ec", command], capture_output=True, check=False).returncode == 0
    authority.ensure()
    assert trusted.read_bytes() == certificate.read_bytes()

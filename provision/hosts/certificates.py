"""The certificates of a deployment on hosts: a certificate authority of its own, or the user's, and one per host.

https://www.mongodb.com/docs/manual/core/security-transport-encryption/
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import ipaddress
import shlex
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provision.core.dataclass import dataclass
from provision.core.errors import ProvisionError
from provision.state import records

if TYPE_CHECKING:
    from cryptography import x509

_CA_DAYS = 3650
_HOST_DAYS = 397
_RENEW_DAYS = 30
# A host's clock may be a little behind this machine's.
_BACKDATED = datetime.timedelta(hours=1)
_PRIVATE = 0o600


@dataclass(frozen=True)
class Authority:
    """A certificate authority: what vouches for the hosts of one deployment."""

    deployment: str  # whose it is
    certificate: Path  # file with its certificate, PEM
    key: Path  # file with its private key, PEM
    trusted: Path  # where the certificate is kept for those who connect: the same file, if the tool makes it

    def ensure(self) -> bool:
        """Make it, where it is the tool's own and missing: certificate 0644, key 0600. Keep a copy of the user's.

        Returns: Whether it was made now.
        Raises ProvisionError: it is the user's and missing or not usable, or half of it is lost.
        """
        doing = f"looking up the certificate authority of {self.deployment}"
        missing = [path for path in (self.certificate, self.key) if not path.is_file()]
        own = self.certificate == self.trusted
        if not missing:
            if not own and not _same(self.certificate, self.trusted):
                self._check_usable()
                records.AUTHORITY.put(self.trusted, self.certificate.read_bytes())
            return False
        if not own:
            raise ProvisionError(
                doing,
                f"{' and '.join(map(str, missing))} cannot be found.",
                f"Set deployments.{self.deployment}.tls_ca_file and .tls_ca_key_file in invoke.yaml to the PEM files "
                "of your\ncertificate authority, or both to null: then the tool makes one.",
            )
        if len(missing) == 1:
            raise ProvisionError(
                doing,
                f"{missing[0]} is lost, and {self.certificate if missing[0] == self.key else self.key} is there.",
                "Put it back from a backup. Without it, stop the deployment, remove the other one, and start it: "
                "it gets a new authority.",
            )
        certificate, key = _make_authority(self.deployment)
        records.AUTHORITY_KEY.put(self.key, key)
        records.AUTHORITY.put(self.certificate, certificate)
        return True

    def issue(self, host: str, names: Sequence[str]) -> bytes:
        """A new key and certificate for one host.

        Args:
            host: its name, which becomes the certificate's subject.
            names: the names and addresses under which it is reached.

        Returns: Certificate and private key as one PEM text, as mongod's `certificateKeyFile` wants them.
        Raises ProvisionError: the authority's files can't be read or used.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        authority, signing = self._load()
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.deployment),
                x509.NameAttribute(NameOID.COMMON_NAME, host[:64]),
            ]
        )
        until = min(now + datetime.timedelta(days=_HOST_DAYS), authority.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            # Members are each other's clients, too.
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([_general(each) for each in names]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
            .sign(signing, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + private

    def host_certificate(self, kept: Path, host: str, names: Sequence[str], renew: bool = False) -> bytes:
        """A host's key and certificate: the one that was kept, or a new one where that will no longer do.

        Args:
            kept: file it is kept in, 0600.
            names: the names and addresses under which it is reached.
            renew: issue a new one in any case.

        Returns: Certificate and private key, PEM.
        Raises ProvisionError: as `issue`.
        """
        with contextlib.suppress(OSError, ValueError):
            present = kept.read_bytes()
            if not renew and self._serves(present, names):
                return present
        made = self.issue(host, names)
        records.HOST_CERTIFICATE.put(kept, made)
        return made

    def _serves(self, pem: bytes, names: Sequence[str]) -> bool:
        """Whether a certificate is this authority's, has the names and does not end soon."""
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature

        certificate = x509.load_pem_x509_certificate(pem)
        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return False
        left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        has = set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        return {_general(each) for each in names} <= has and left > datetime.timedelta(days=_RENEW_DAYS)

    def _check_usable(self) -> None:
        """See that what this authority issues is accepted, before any host gets it.

        A handshake in memory says so: Python 3.13 and later refuse authorities that earlier ones took.
        """
        name = "localhost"
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            pem = Path(folder) / "host.pem"
            pem.touch(_PRIVATE)
            pem.write_bytes(self.issue(name, [name]))
            server.load_cert_chain(pem)
        try:
            _shake_hands(server, trusting(self.certificate), name)
        except ssl.SSLCertVerificationError as refusal:
            raise ProvisionError(
                f"checking the certificate authority of {self.deployment}",
                f"{self.certificate} is refused: {refusal.verify_message.rstrip('.')}.",
                "Make its certificate again with the same key and what an authority's must have:\n"
                f"openssl req -x509 -new -key {shlex.quote(str(self.key))} -days 3650 "
                f"-subj '/CN={self.deployment} authority' \\\n"
                "  -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' \\\n"
                f"  -out {shlex.quote(str(self.certificate))}",
            ) from None

    def _load(self) -> tuple[x509.Certificate, Any]:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            key = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as problem:
            raise ProvisionError(
                f"reading the certificate authority of {self.deployment}",
                f"{self.certificate} and {self.key} cannot be used: {problem}.",
                "Both must be PEM, and the key without a passphrase.",
            ) from None
        if certificate.public_key() != key.public_key():
            raise ProvisionError(
                f"reading the certificate authority of {self.deployment}",
                f"{self.key} is not the key of {self.certificate}.",
                f"Set deployments.{self.deployment}.tls_ca_file and .tls_ca_key_file to a pair that belongs together.",
            )
        return certificate, key


def trusting(certificate: Path) -> ssl.SSLContext:
    """What the tool's own connections are encrypted with: it trusts one authority and no other.

    `certificate`: the authority's, PEM.

    Raises ProvisionError: it is missing, or is not a certificate.
    """
    try:
        facts = certificate.stat()
        return _context(str(certificate), facts.st_mtime_ns, facts.st_ino)
    except OSError as problem:  # ssl.SSLError is one, too
        raise ProvisionError(
            f"reading the certificate authority {certificate}",
            f"{problem.strerror or problem}.",
            "It must be a PEM file.",
        ) from None


@functools.lru_cache(maxsize=8)
def _context(certificate: str, _changed: int, _inode: int) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate)
    # As Python 3.13 has it by default: what is refused there is refused on every Python.
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A TLS handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in tuple(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _make_authority(deployment: str) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{deployment} certificate authority")])
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA384())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _usage(
    digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

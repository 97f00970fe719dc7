"""Certificate authorities and what they issue.

A cluster has two: the store's (peers and API servers) and Kubernetes' (everyone else), so that no
credential of the one opens a port of the other. Roles are the subject's organizations.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raftkube.clock import Clock
from raftkube.errors import ConfigError
from raftkube.files import read_file, write_file

STORE_PEER: Final = "raftkube:store-peer"
STORE_CLIENT: Final = "raftkube:store-client"
STORE_ADMIN: Final = "raftkube:store-admin"
STORE_METRICS: Final = "raftkube:store-metrics"

_CA_DAYS: Final = 3650
_LEAF_DAYS: Final = 365
_BACKDATE: Final = datetime.timedelta(minutes=5)  # clocks of a small cluster differ a little


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: str | Path, name: str) -> tuple[str, str]:
        """Write NAME.crt and NAME.key (0600) into `directory`; return the two paths."""
        certificate, key = Path(directory, f"{name}.crt"), Path(directory, f"{name}.key")
        write_file(key, self.key, mode=0o600)
        write_file(certificate, self.certificate, mode=0o644)
        return str(certificate), str(key)


class Authority:
    """A CA that is held on this machine."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    def create(cls, common_name: str, clock: Clock) -> Authority:
        """A new self-signed CA (P-256, ten years)."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = (
            _builder(name, name, key.public_key(), clock, _CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key, clock)

    @classmethod
    def load(cls, directory: str | Path, name: str, clock: Clock) -> Authority:
        """The CA that `write` left. Raises ConfigError: missing or not a CA."""
        certificate = read_file(Path(directory, f"{name}.crt"), what="CA certificate")
        key_pem = read_file(Path(directory, f"{name}.key"), what="CA key")
        try:
            key = serialization.load_pem_private_key(key_pem, password=None)
            loaded = x509.load_pem_x509_certificate(certificate)
        except ValueError as error:
            raise ConfigError(f"CA {name!r} in {str(directory)!r} is not valid PEM: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"CA {name!r} in {str(directory)!r} must have an elliptic-curve key")
        return cls(loaded, key, clock)

    @property
    def certificate_pem(self) -> bytes:
        """What others must trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, directory: str | Path, name: str) -> str:
        """Write NAME.crt and NAME.key into `directory`; return the certificate's path."""
        return Issued(self.certificate_pem, _key_pem(self._key)).write(directory, name)[0]

    def issue(
        self,
        common_name: str,
        *,
        organizations: tuple[str, ...] = (),
        hosts: tuple[str, ...] = (),
        server: bool = False,
        client: bool = True,
        days: int = _LEAF_DAYS,
    ) -> Issued:
        """A certificate for `common_name` (user) in `organizations` (groups), valid for `hosts`
        (names and addresses), usable as server, client, or both."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
            + [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        )
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        builder = (
            _builder(subject, self._certificate.subject, key.public_key(), self._clock, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            )
        return Issued(
            builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _key_pem(key)
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, clock: Clock, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.fromtimestamp(clock.wall(), datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

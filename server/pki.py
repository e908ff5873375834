"""The coordinator's own small certificate authority for its public port, and sites' node keys."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import NameOID

from server.errors import ServerError

_CA_DAYS = 3650
_SERVER_DAYS = 397
_DNS = re.compile(r"[A-Za-z0-9._-]{1,253}")
_COMMON_NAME = 64  # characters, RFC 5280 appendix A.1
_CLOCK_SLACK = datetime.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def authority(name: str) -> Pair:
    """A new P-384 certificate authority that may sign server certificates only (RFC 5280)."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"privity {name} CA"[:_COMMON_NAME])]
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        _builder(subject, subject, key.public_key(), now, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA384())
    )
    return _pair(certificate, key)


def server(host: str, ca: Pair) -> Pair:
    """A certificate for `host` (and for loopback, where the coordinator reaches itself).

    Raises:
        ServerError: a certificate cannot name `host`.
    """
    issuer = x509.load_pem_x509_certificate(ca.certificate)
    signer = load_pem_private_key(ca.key, None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP384R1())
    names = [_alternative(name) for name in sorted({host, "localhost", "127.0.0.1"})]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:_COMMON_NAME])]),
            issuer.subject,
            key.public_key(),
            now,
            _SERVER_DAYS,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .sign(signer, hashes.SHA384())
    )
    return _pair(certificate, key)


def node_key(line: str) -> bytes | None:
    """The P-384 key of an OpenSSH line, its comment aside, as Flower keeps it (SPKI, PEM).

    Returns:
        None where the line holds no such key: nobody can connect with it.
    """
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1"):
        return None
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def days_left(certificate: bytes) -> int:
    """Whole days until `certificate` expires; negative when it has."""
    end = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    return (end - datetime.datetime.now(datetime.UTC)).days


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    if not _DNS.fullmatch(name):
        raise ServerError(
            "the host is an IP address or 1 to 253 of A-Z a-z 0-9 . _ - without a port, an "
            "international name in its xn-- form; correct it",
            code="bad-host",
        )
    return x509.DNSName(name)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )

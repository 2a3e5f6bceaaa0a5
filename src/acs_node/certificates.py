"""Certificates: makes a small authority and what it signs, and looks at what a node was given.

The authority is for development and for clusters whose operators have none: its key is a file,
and nothing is revoked but by making another one.  Nodes take certificates of any authority that
have the name of ``tls.node_domain`` in them.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .tls import node_domain

DAYS_MAX: Final = 36_500

_SKEW: Final = datetime.timedelta(minutes=5)
"""Clocks of machines differ: valid a little earlier than now."""

_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class CertificateError(Exception):
    """A certificate or key is not what it must be; the text says what it is."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def make_authority(cluster: str, days: int) -> Pair:
    """Make what signs the certificates of a cluster."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(f"ACS cluster {cluster}")
    builder = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def make_node(authority: Pair, cluster: str, role: str, name: str, days: int) -> Pair:
    """Make the certificate of one node.  Raises: ValueError, CertificateError."""
    domain = node_domain(cluster, role, name)
    return _make_leaf(authority, f"{role} {name}"[:64], [x509.DNSName(domain)], days)


def make_server(authority: Pair, hosts: Sequence[str], days: int) -> Pair:
    """Make the certificate of a server, such as etcd, at these addresses or DNS names.

    It is none of a node's.  Raises: CertificateError.
    """
    names = [_general_name(host) for host in hosts]
    return _make_leaf(authority, hosts[0][:64], names, days)


def write_pair(folder: Path, name: str, pair: Pair) -> tuple[Path, Path]:
    """Write ``name.pem`` and ``name.key``, both or none, and return them.

    What is there is never replaced.  Raises: OSError.
    """
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    written: list[Path] = []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        for path, content, mode in ((key, pair.key, 0o600), (certificate, pair.certificate, 0o644)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(path)
            with open(descriptor, "wb") as file:
                file.write(content)
    except OSError:
        for path in written:
            path.unlink()
        raise
    return certificate, key


def check_node(pair: Pair, ca: bytes, domain: str, now: datetime.datetime) -> None:
    """See that this is a certificate for ``domain``, with its key.  Raises: CertificateError."""
    chain = _certificates("tls_certificate", pair.certificate)
    authorities = _certificates("tls_ca", ca)
    certificate = chain[0]
    key = _key("tls_key", pair.key)
    if _public_bytes(key.public_key()) != _public_bytes(certificate.public_key()):
        raise CertificateError("tls_key is not the key of tls_certificate")
    names = _dns_names(certificate)
    if domain not in names:
        raise CertificateError(
            f"tls_certificate is for {', '.join(names) or 'no name'}; this node is {domain}"
        )
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise CertificateError(
            f"tls_certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and not now"
        )
    # With intermediates in the file it is left to the handshake.
    if len(chain) == 1 and not any(_has_signed(each, certificate) for each in authorities):
        raise CertificateError("tls_certificate is signed by none of tls_ca")


def _make_leaf(authority: Pair, title: str, names: list[x509.GeneralName], days: int) -> Pair:
    issuer = _certificates("the authority's certificate", authority.certificate)[0]
    issuer_key = _key("the authority's key", authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_subject(title), issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        # Every node dials some and is dialled by others.
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    return _pair(builder.sign(issuer_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(title: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title[:64])])


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in allowed for usage in _USAGES})


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise CertificateError(f"{host!r} is neither an address nor a DNS name") from None


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _certificates(what: str, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateError(f"{what} is no PEM of a certificate") from None


def _key(what: str, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        # What the library says may quote what it has read.
        raise CertificateError(f"{what} is no PEM of a key without a password") from None
    return key  # type: ignore[return-value]  # others have the same methods


def _public_bytes(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return found.value.get_values_for_type(x509.DNSName)


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True

"""Who a node is, proven: mutual TLS between nodes, with role and name in the certificate.

A node's certificate has one DNS name, ``{name}.{role}.{cluster}.acs.internal``.  Nobody resolves
it: it is what a dialling node wants to see of the other side, wherever that one listens, and what
a hello is compared with.  Who signs is ``tls_ca`` and nobody else; how certificates are made for
trying things is in ``certificates``.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc

DOMAIN: Final = "acs.internal"

_NAME: Final = re.compile(r"[a-z0-9_-]([a-z0-9_.-]{0,62}[a-z0-9_-])?")
_CLUSTER: Final = re.compile(r"[a-z0-9_-]{1,64}")


def node_domain(cluster: str, role: str, name: str) -> str:
    """Return the DNS name in a node's certificate.

    Raises: ValueError for names that could be read in two ways (DNS knows no capital letters).
    """
    if not _CLUSTER.fullmatch(cluster):
        raise ValueError(
            f"cluster is {cluster!r}; with TLS it must be 1..64 of a-z, 0-9, dash and underscore"
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name is {name!r}; with TLS it must be 1..64 of a-z, 0-9, dash, underscore and dots "
            "inside"
        )
    return f"{name}.{role}.{cluster}.{DOMAIN}"


def presented_names(auth_context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Return the names in the certificate of a stream's other side, as gRPC has verified it."""
    names = auth_context.get("x509_subject_alternative_name", ())
    return [name.decode("utf-8", "replace") for name in names]


@dataclass(frozen=True, slots=True)
class LinkTls:
    """What a node's links are secured with; all but ``cluster`` are PEM."""

    cluster: str
    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return those of the listening side: without a certificate of ``ca`` no stream."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], self.ca, require_client_auth=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return those of the dialling side."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

    def server_context(self) -> ssl.SSLContext:
        """Return the listening side's, for sockets: without a certificate of ``ca`` no stream."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client_context(self) -> ssl.SSLContext:
        """Return the dialling side's, for sockets; whose certificate it is, is for the caller."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A certificate has the name of a node, not that of a host: ``is_proven`` looks at it.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.ca.decode())
        # It takes nothing but files; this one is never on a disk.
        with os.fdopen(os.memfd_create("acs-node"), "wb") as file:
            file.write(self.certificate + b"\n" + self.key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return context

    def expecting(self, role: str, name: str) -> tuple[tuple[str, str], ...]:
        """Return the options of a channel that speaks with this node and no other."""
        return (("grpc.ssl_target_name_override", node_domain(self.cluster, role, name)),)

    def is_proven(self, role: str, name: str, names: Iterable[str]) -> bool:
        """Tell whether a certificate with these names is that of the node."""
        try:
            return node_domain(self.cluster, role, name) in names
        except ValueError:
            return False

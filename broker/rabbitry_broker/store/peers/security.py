"""TLS between peers, by the options of the store's address: values go from host to host as they would through Redis.

| the store's address | peers |
|---|---|
| `redis://`, `unix://` | speak plainly |
| `rediss://` with `ssl_certfile` | speak TLS; nodes show that certificate |
| `rediss://` without | nodes have nothing to show: none serves, and all goes through Redis |

A certificate is checked against the authority that the address names (if it names checks at all), not for its name:
nodes are reached by number. Who a node is, is proved by the cluster's secret over the certificate that it showed
(`session`), so that another certificate of the same authority is worth nothing.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

from rabbitry_broker.store.redis.address import Address, certificate_files, tls_context

_HANDSHAKE_SECONDS: Final = 5.0


class ServerSecurity:
    """What a node needs for TLS.

    Args:
        address: the store's, which names a certificate.

    Raises:
        OSError: a file cannot be read, or holds no certificate or key.
        ValueError: no certificate in it.
    """

    def __init__(self, address: Address) -> None:
        certificate, key = certificate_files(address)
        if not certificate:
            raise ValueError("the store's address names no certificate that a node could show (ssl_certfile)")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        with open(certificate, encoding="ascii", errors="replace") as file:
            text = file.read()
        begin = text.index(ssl.PEM_HEADER)
        end = text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
        self.certificate = ssl.PEM_cert_to_DER_cert(text[begin:end])

    def wrap(self, raw: socket.socket) -> ssl.SSLSocket:
        """Return the socket that takes the place of one; `do_handshake` comes next, and takes some seconds at most.

        Raises:
            OSError: the connection has ended.
        """
        raw.settimeout(_HANDSHAKE_SECONDS)
        return self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)


class ReaderSecurity:
    """What a reader needs for TLS.

    Args:
        address: the store's.

    Raises:
        OSError: a file cannot be read.
    """

    def __init__(self, address: Address) -> None:
        self._context = tls_context(address)
        self._context.check_hostname = False

    def wrap(self, raw: socket.socket) -> tuple[socket.socket, bytes]:
        """Shake hands with a node; return the encrypted socket and the certificate that it showed.

        Raises:
            OSError: its certificate is not to be trusted, or it takes too long.
        """
        raw.settimeout(_HANDSHAKE_SECONDS)
        wrapped = self._context.wrap_socket(raw)
        return wrapped, wrapped.getpeercert(binary_form=True) or b""

"""What could not be read, kept for the operator."""

from __future__ import annotations

import time

from rabbitry_broker.errors import StoreError
from rabbitry_broker.store.keys import Keys
from rabbitry_broker.store.server import Server

PUT_ASIDE_KEPT = 1000
PUT_ASIDE_BYTES = 4096


class Aside:
    """Puts things aside. Any thread may call it."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    def put(self, where: str, data: bytes, reason: str) -> None:
        """Keep something unreadable for the operator (the last `PUT_ASIDE_KEPT` of them), and count it."""
        told = f"{time.time():.3f} {where}: {reason}".encode() + b"\0" + data[:PUT_ASIDE_BYTES]
        try:
            self._server.pipeline(
                [
                    (b"LPUSH", self._keys.put_aside, told),
                    (b"LTRIM", self._keys.put_aside, 0, PUT_ASIDE_KEPT - 1),
                    (b"INCR", self._keys.put_aside + b":count"),
                ]
            )
        except StoreError:
            return  # the record of a bad message is not worth failing good work for

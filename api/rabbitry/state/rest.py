"""The state of a cluster read from an HTTP service, where its servers cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from rabbitry.state.errors import RayStateApiException, ServerUnavailable

SCHEMES: Final = ("http", "https")
PIECE_BYTES: Final = 1 << 16
TEXT_BYTES: Final = 500


def is_service(address: str | None) -> bool:
    """Return True for the address of an HTTP service.

    Example:
        >>> is_service("http://127.0.0.1:8265"), is_service("amqp://host/vhost"), is_service(None)
        (True, False, False)
    """
    return urlsplit(address or "").scheme in SCHEMES


class Service:
    """Asks an HTTP service. Any thread may use it.

    Args:
        address: its URL.
        headers: of each request, a token for example.
        cookies: of each request.
    """

    def __init__(
        self, address: str, headers: Mapping[str, str] | None = None, cookies: Mapping[str, str] | None = None
    ) -> None:
        self.address = address.rstrip("/")
        self._headers = dict(headers or {})
        if cookies:
            self._headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())

    def get(self, path: str, parameters: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Return what the service answers.

        Args:
            path: of what is asked for.
            parameters: a list stands for several of one name.
            timeout: seconds.

        Raises:
            ServerUnavailable: it cannot be reached.
            RayStateApiException: it refuses, or its answer makes no sense.
        """
        url = f"{self.address}{path}?{urlencode(parameters, doseq=True)}"
        try:
            with urlopen(Request(url, headers=self._headers), timeout=timeout) as reply:
                text = reply.read()
        except HTTPError as error:
            text = error.read()
            if "json" not in error.headers.get("Content-Type", ""):
                told = text[:TEXT_BYTES].decode("utf-8", "replace")
                raise RayStateApiException(f"{self.address}{path} answered {error.code}: {told}") from error
        except (URLError, OSError) as error:
            raise ServerUnavailable(f"The HTTP service at {self.address} cannot be reached: {error}") from error
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise RayStateApiException(f"{self.address}{path} answered no JSON: {text[:TEXT_BYTES]!r}") from error
        if not isinstance(answer, dict) or not answer.get("result"):
            why = (answer.get("msg") or answer.get("detail") or answer) if isinstance(answer, dict) else answer
            raise RayStateApiException(f"The HTTP service at {self.address} could not answer: {why}")
        return dict(answer["data"])

    def pieces(self, path: str, parameters: Mapping[str, Any], timeout: float) -> Iterator[bytes]:
        """Yield the body of an answer as it comes; see `get`."""
        url = f"{self.address}{path}?{urlencode(parameters, doseq=True)}"
        try:
            with urlopen(Request(url, headers=self._headers), timeout=timeout) as reply:
                while piece := reply.read1(PIECE_BYTES):
                    yield piece
        except HTTPError as error:
            raise RayStateApiException(error.read()[:TEXT_BYTES].decode("utf-8", "replace")) from error
        except (URLError, OSError) as error:
            raise ServerUnavailable(f"The HTTP service at {self.address} cannot be reached: {error}") from error

"""The packing of messages: see `rabbitry_broker.messages`."""

from __future__ import annotations

import pytest

from rabbitry_broker.messages import decode, encode


@pytest.mark.parametrize("data", [b"", b"\x92\x01", b"\xc1", encode([1]) + b"\x00"])
def test_what_cannot_be_decoded_is_a_value_error_with_every_msgspec(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"(?i)messagepack|truncated|trailing"):
        decode(data)

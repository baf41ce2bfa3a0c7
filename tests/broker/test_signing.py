"""What is signed can be read by those who hold a secret, and by nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.signing import SIGNATURE_BYTES, ForgedMessage, Signer

SECRET = b"a secret of the cluster"
SIGNER = Signer((SECRET,))


@given(st.binary(max_size=40), st.one_of(st.binary(max_size=200), st.just(b"x" * 10_000)))
def test_sealed_payload_opens_in_its_context(context: bytes, payload: bytes) -> None:
    sealed = SIGNER.seal(context, payload)
    assert SIGNER.open(context, sealed) == payload
    assert sealed == SIGNER.sign(context, payload) + payload


@given(st.binary(max_size=40), st.binary(max_size=200), st.data())
def test_one_changed_bit_is_noticed(context: bytes, payload: bytes, data: st.DataObject) -> None:
    sealed = bytearray(SIGNER.seal(context, payload))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ForgedMessage):
        SIGNER.open(context, bytes(sealed))


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_borders_between_parts_matter(one: list[bytes], other: list[bytes]) -> None:
    assert SIGNER.verify(SIGNER.sign(*one), *other) == (one == other)


@pytest.mark.parametrize("size", [0, 100, 4096, 4097, 100_000])
def test_large_and_small_payloads_are_signed_alike(size: int) -> None:
    payload = bytes(size)
    assert SIGNER.open(b"c", SIGNER.sign(b"c", payload) + payload) == payload
    assert SIGNER.verify(SIGNER.seal(b"c", payload)[:SIGNATURE_BYTES], b"c", payload)


def test_another_context_does_not_open() -> None:
    with pytest.raises(ForgedMessage, match="RABBITRY_SECRET"):
        SIGNER.open(b"inbox of b", SIGNER.seal(b"inbox of a", b"payload"))


@pytest.mark.parametrize("length", range(SIGNATURE_BYTES + 1))
def test_truncated_seal_is_refused(length: int) -> None:
    with pytest.raises(RabbitryBrokerError):
        SIGNER.open(b"c", SIGNER.seal(b"c", b"payload")[:length])


def test_older_secrets_verify_while_the_newest_signs() -> None:
    new, old = b"the newer secret", b"the older secret"
    rotating, before, after = Signer((new, old)), Signer((old,)), Signer((new,))
    assert rotating.open(b"c", before.seal(b"c", b"payload")) == b"payload"
    assert rotating.verify(before.sign(b"a", b"b", b"c"), b"a", b"b", b"c")
    assert after.open(b"c", rotating.seal(b"c", b"payload")) == b"payload"
    with pytest.raises(ForgedMessage):
        before.open(b"c", rotating.seal(b"c", b"payload"))


def test_secrets_of_any_length_differ() -> None:
    longer = Signer((SECRET + bytes(100),))
    assert not longer.verify(SIGNER.sign(b"x"), b"x")
    assert not Signer((SECRET + b"\0",)).verify(SIGNER.sign(b"x"), b"x")


@pytest.mark.parametrize("secrets", [(), (b"",), (b"fifteen bytes!!",), (SECRET, b"short")])
def test_short_secrets_are_refused_without_being_shown(secrets: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="16") as caught:
        Signer(secrets)
    assert "short" not in str(caught.value) and "fifteen" not in str(caught.value)


def test_repr_shows_no_secret() -> None:
    assert repr(Signer((SECRET, SECRET))) == "Signer(2 secrets)"

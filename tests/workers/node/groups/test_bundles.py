"""Bundles on a node: set aside, held, given back when nothing runs inside."""

from __future__ import annotations

import pytest

from rabbitry_broker.queue_names import bundle_queue, parse
from rabbitry_broker.resources import ResourceRequest
from rabbitry_workers.node.groups.bundles import Bundles, BundleState
from rabbitry_workers.node.model.ledger import Ledger

GROUP, OTHER = b"g" * 18, b"o" * 18


def request(text: str) -> ResourceRequest:
    return ResourceRequest.parse(text)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(request("CPU=4,GPU=2"), ["7", "9"])


@pytest.fixture
def bundles(ledger: Ledger) -> Bundles:
    return Bundles(ledger)


def test_all_or_nothing(bundles, ledger):
    assert not bundles.reserve(GROUP, b"t", {0: request("CPU=3"), 1: request("CPU=2")})
    assert ledger.is_idle
    assert bundles.reserve(GROUP, b"t", {0: request("CPU=3"), 1: request("CPU=1")})
    assert bundles.reserve(GROUP, b"t", {0: request("CPU=3"), 1: request("CPU=1")})  # asked again
    assert not bundles.reserve(GROUP, b"u", {0: request("CPU=1")})
    assert ledger.available()["CPU"] == 0.0
    bundles.close(bundles.of(GROUP))
    assert ledger.is_idle


def test_nothing_runs_inside_before_the_group_stands(bundles):
    bundles.reserve(GROUP, b"t", {0: request("CPU=1")})
    account = bundles.account_of(bundle_queue(GROUP, 0))
    assert account.acquire(request("CPU=1")) is None
    assert [bundle.index for bundle in bundles.hold(GROUP)] == [0]
    assert bundles.hold(GROUP) == []
    grant = account.acquire(request("CPU=1"))
    assert grant is not None
    assert not account.has_room(request("CPU=0.5"))
    assert account.times(request("CPU=0.5")) == 2


def test_any_bundle_of_a_group_will_do(bundles):
    bundles.reserve(GROUP, b"t", {0: request("CPU=1"), 2: request("CPU=2")})
    bundles.reserve(OTHER, b"t", {0: request("CPU=1")})
    bundles.hold(GROUP)
    account = bundles.account_of(bundle_queue(GROUP, -1))
    assert account.times(request("CPU=1")) == 3
    assert account.acquire(request("CPU=2")) is not None
    assert account.acquire(request("CPU=1")) is not None
    assert account.acquire(request("CPU=1")) is None
    assert bundles.serves(parse(bundle_queue(GROUP, -1)))
    assert bundles.serves(parse(bundle_queue(GROUP, 2)))
    assert not bundles.serves(parse(bundle_queue(GROUP, 1)))
    assert bundles.fits(parse(bundle_queue(GROUP, -1)), request("CPU=2"))
    assert not bundles.fits(parse(bundle_queue(GROUP, 0)), request("CPU=2"))


def test_only_those_bundles_will_do_that_a_queue_names(bundles):
    bundles.reserve(GROUP, b"t", {0: request("CPU=1"), 2: request("CPU=2")})
    bundles.hold(GROUP)
    one, other = bundle_queue(GROUP, -1, [1, 2]), bundle_queue(GROUP, -1, [1, 3])
    account = bundles.account_of(one)
    assert account.times(request("CPU=1")) == bundles.slots(parse(one)) == 2
    assert account.acquire(request("CPU=2")) is not None
    assert not account.has_room(request("CPU=1"))
    assert not bundles.has_room(parse(one))
    assert bundles.has_room(parse(bundle_queue(GROUP, -1)))
    assert bundles.serves(parse(one))
    assert not bundles.serves(parse(other))
    assert bundles.fits(parse(one), request("CPU=2"))


def test_gpus_inside_are_those_of_the_bundle(bundles):
    bundles.reserve(GROUP, b"t", {0: request("GPU=1"), 1: request("GPU=0.5")})
    bundles.hold(GROUP)
    one = bundles.account_of(bundle_queue(GROUP, 0)).acquire(request("GPU=1"))
    half = bundles.account_of(bundle_queue(GROUP, 1)).acquire(request("GPU=0.5"))
    assert one is not None
    assert half is not None
    assert {one.gpu_ids, half.gpu_ids} == {("7",), ("9",)}
    assert bundles.account_of(bundle_queue(GROUP, 1)).acquire(request("GPU=0.5")) is None


def test_a_bundle_goes_back_when_the_last_that_runs_inside_has_ended(bundles, ledger):
    bundles.reserve(GROUP, b"t", {0: request("CPU=2")})
    bundles.hold(GROUP)
    account = bundles.account_of(bundle_queue(GROUP, 0))
    first, second = account.acquire(request("CPU=1")), account.acquire(request("CPU=1"))
    assert first is not None
    assert second is not None
    first.ledger.lend(first)
    (closing,) = bundles.close(bundles.of(GROUP))
    assert closing.state is BundleState.CLOSING
    assert bundles.close([closing]) == []
    assert account.acquire(request("CPU=1")) is None
    for grant in (first, second):
        assert not bundles.release_idle()
        grant.ledger.release(grant)
    assert ledger.available()["CPU"] == 2.0
    assert bundles.release_idle()
    assert closing.state is BundleState.GONE
    assert ledger.is_idle
    assert not bundles.any_closing


def test_the_place_of_a_closing_bundle_may_be_taken(bundles, ledger):
    bundles.reserve(GROUP, b"t", {0: request("CPU=1")})
    bundles.hold(GROUP)
    grant = bundles.account_of(bundle_queue(GROUP, 0)).acquire(request("CPU=1"))
    assert grant is not None
    bundles.close(bundles.of(GROUP))
    assert bundles.reserve(GROUP, b"u", {0: request("CPU=1")})
    assert sorted(bundles.tokens()) == [(GROUP, b"t"), (GROUP, b"u")]
    grant.ledger.release(grant)
    bundles.release_idle()
    assert bundles.tokens() == [(GROUP, b"u")]
    assert ledger.available()["CPU"] == 3.0


def test_what_is_free_inside_is_told(bundles):
    bundles.reserve(GROUP, b"t", {0: request("CPU=1"), 1: request("GPU=2")})
    assert bundles.free_in([GROUP, OTHER]) == []
    bundles.hold(GROUP)
    assert bundles.free_in([GROUP, OTHER]) == [(GROUP, [{"CPU": 1.0}, {"GPU": 2.0}])]
    assert bundles.slots(parse(bundle_queue(GROUP, -1))) == 2
    for index, text in ((0, "CPU=1"), (1, "GPU=0.5")):
        bundles.account_of(bundle_queue(GROUP, index)).acquire(request(text))
    assert bundles.free_in([GROUP]) == [(GROUP, [{"CPU": 0.0}, {"GPU": 1.5}])]
    assert bundles.has_room(parse(bundle_queue(GROUP, -1)))
    assert not bundles.has_room(parse(bundle_queue(GROUP, 0)))


def test_an_impossible_move_is_a_bug(bundles):
    bundles.reserve(GROUP, b"t", {0: request("CPU=1")})
    (bundle,) = bundles.of(GROUP)
    with pytest.raises(AssertionError, match=r"RESERVED -> .*CLOSING"):
        bundle.move(BundleState.CLOSING)

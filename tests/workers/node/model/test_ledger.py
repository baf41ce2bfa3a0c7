"""The ledger never gives more than there is, except by force, and ends where it began."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from rabbitry_broker.resources import UNITS, ResourceRequest
from rabbitry_workers.node.model.ledger import Grant, GrantState, Ledger

request_of = ResourceRequest.from_floats


def _taken(ledger: Ledger, *amounts: dict[str, float]) -> list[Grant]:
    grants = [ledger.acquire(request_of(each)) for each in amounts]
    assert None not in grants
    return [grant for grant in grants if grant is not None]


REQUESTS = st.builds(
    lambda cpu, gpu, custom: ResourceRequest.from_units({"CPU": cpu, "GPU": gpu, "x": custom}),
    st.integers(0, 3 * UNITS),
    st.one_of(st.integers(0, UNITS - 1), st.integers(0, 4).map(lambda count: count * UNITS)),
    st.integers(0, 2 * UNITS),
)


class LedgerMachine(RuleBasedStateMachine):
    """Any sequence of what an agent may do."""

    grants: Bundle[Grant] = Bundle("grants")

    @initialize(cpus=st.integers(0, 4), gpus=st.integers(0, 4), custom=st.integers(0, 3))
    def start(self, cpus: int, gpus: int, custom: int) -> None:
        self.totals = request_of({"CPU": cpus, "GPU": gpus, "x": custom})
        self.ledger = Ledger(self.totals)
        self.live: list[Grant] = []
        self.forced = False

    @rule(target=grants, request=REQUESTS)
    def acquire(self, request: ResourceRequest) -> Grant:
        had_room = self.ledger.has_room(request)
        before = self.ledger.free_units()
        grant = self.ledger.acquire(request)
        assert (grant is not None) == had_room
        if grant is None:
            assert self.ledger.free_units() == before
            if not self.live:
                assert not self.ledger.can_ever(request)
            # A bundle of a machine holds something in any case.
            grant = Grant(self.ledger, ResourceRequest.from_units({}), (), 0)
            grant.state = GrantState.RELEASED
            return grant
        assert self.ledger.can_ever(request)
        self.live.append(grant)
        return grant

    @rule(target=grants, request=REQUESTS)
    def force(self, request: ResourceRequest) -> Grant:
        if request.amount("GPU") > self.totals.amount("GPU"):
            request = ResourceRequest.from_units({"CPU": request.amount("CPU")})
        grant = self.ledger.force_acquire(request)
        self.live.append(grant)
        self.forced = True
        return grant

    @rule(grant=grants)
    def lend(self, grant: Grant) -> None:
        if grant.state is GrantState.HELD:
            self.ledger.lend(grant)

    @rule(grant=grants)
    def reclaim(self, grant: Grant) -> None:
        if grant.state is GrantState.LENT:
            self.ledger.reclaim(grant)
            self.forced = True

    @rule(grant=consumes(grants))
    def release(self, grant: Grant) -> None:
        if grant.state is not GrantState.RELEASED:
            self.ledger.release(grant)
            self.live.remove(grant)

    @invariant()
    def what_is_free_and_what_is_taken_are_the_total(self) -> None:
        if not hasattr(self, "ledger"):
            return
        taken: Counter[str] = Counter()
        gpus: Counter[str] = Counter()
        for grant in self.live:
            for name, units in grant.request.units:
                if not (name == "CPU" and grant.state is GrantState.LENT):
                    taken[name] += units
            gpu = grant.request.amount("GPU")
            assert len(set(grant.gpu_ids)) == len(grant.gpu_ids) == -(-gpu // UNITS)
            for gpu_id in grant.gpu_ids:
                gpus[gpu_id] += min(gpu, UNITS)
        free = self.ledger.free_units()
        for name in {*free, *taken}:
            assert free.get(name, 0) == self.totals.amount(name) - taken[name]
        if not self.forced:
            assert all(units >= 0 for units in free.values())
            assert all(units <= UNITS for units in gpus.values())

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for grant in self.live:
            self.ledger.release(grant)
        assert self.ledger.available() == self.totals.to_floats()
        assert {name: units for name, units in self.ledger.free_units().items() if units} == self.totals.to_units()


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_tenths_fill_one_cpu_exactly() -> None:
    ledger = Ledger(request_of({"CPU": 1}))
    grants = _taken(ledger, *[{"CPU": 0.1}] * 10)
    assert ledger.acquire(request_of({"CPU": 0.0001})) is None
    for grant in grants:
        ledger.release(grant)
    assert ledger.available() == {"CPU": 1.0}


def test_nothing_always_fits() -> None:
    ledger = Ledger(request_of({}))
    assert ledger.acquire(request_of({})) is not None


def test_whole_gpus_have_distinct_ids() -> None:
    ledger = Ledger(request_of({"GPU": 3}), ["a", "b", "c"])
    two, one = _taken(ledger, {"GPU": 2}, {"GPU": 1})
    assert sorted(two.gpu_ids + one.gpu_ids) == ["a", "b", "c"]
    assert ledger.acquire(request_of({"GPU": 0.1})) is None


def test_fractions_pack_onto_the_fullest_gpu_that_fits() -> None:
    ledger = Ledger(request_of({"GPU": 2}))
    half, third, large = _taken(ledger, {"GPU": 0.5}, {"GPU": 0.3}, {"GPU": 0.8})
    assert half.gpu_ids == third.gpu_ids == ("0",)
    assert large.gpu_ids == ("1",)
    ledger.release(half)
    (small,) = _taken(ledger, {"GPU": 0.2})
    assert small.gpu_ids == ("1",), "the fuller of the two"
    (larger,) = _taken(ledger, {"GPU": 0.4})
    assert larger.gpu_ids == ("0",), "the only one with room"
    assert ledger.available() == {"GPU": 0.3}


def test_halves_of_two_gpus_are_not_a_whole_one() -> None:
    ledger = Ledger(request_of({"GPU": 2}))
    first, second, third = _taken(ledger, {"GPU": 0.6}, {"GPU": 0.6}, {"GPU": 0.4})
    ledger.release(third)
    assert first.gpu_ids != second.gpu_ids
    assert ledger.available()["GPU"] == 0.8
    assert ledger.acquire(request_of({"GPU": 0.5})) is None


def test_bundle_may_hold_a_share_of_a_gpu() -> None:
    ledger = Ledger(request_of({"GPU": 0.5}), ["7"])
    (grant,) = _taken(ledger, {"GPU": 0.5})
    assert grant.gpu_ids == ("7",)
    assert ledger.acquire(request_of({"GPU": 0.1})) is None


def test_lent_cpu_serves_others_and_returns_as_a_debt() -> None:
    ledger = Ledger(request_of({"CPU": 1, "GPU": 1}))
    (blocked,) = _taken(ledger, {"CPU": 1, "GPU": 1})
    ledger.lend(blocked)
    assert ledger.available() == {"CPU": 1.0, "GPU": 0.0}
    (child,) = _taken(ledger, {"CPU": 1})
    ledger.reclaim(blocked)
    assert ledger.free_units()["CPU"] == -UNITS
    assert ledger.available()["CPU"] == 0.0
    ledger.release(child)
    assert ledger.acquire(request_of({"CPU": 0.5})) is None
    ledger.release(blocked)
    assert ledger.available() == {"CPU": 1.0, "GPU": 1.0}


def test_lent_grant_releases_the_rest() -> None:
    ledger = Ledger(request_of({"CPU": 1, "x": 1}))
    (grant,) = _taken(ledger, {"CPU": 1, "x": 1})
    ledger.lend(grant)
    ledger.release(grant)
    assert ledger.available() == {"CPU": 1.0, "x": 1.0}


def test_force_takes_the_emptiest_gpu_and_cannot_invent_one() -> None:
    ledger = Ledger(request_of({"GPU": 2}))
    _taken(ledger, {"GPU": 1}, {"GPU": 0.5})
    assert ledger.force_acquire(request_of({"GPU": 1})).gpu_ids == ("1",)
    with pytest.raises(ValueError, match="needs 3 GPUs, the node has 2"):
        ledger.force_acquire(request_of({"GPU": 3}))


def test_moves_out_of_order_are_refused() -> None:
    ledger = Ledger(request_of({"CPU": 1}))
    (grant,) = _taken(ledger, {"CPU": 1})
    with pytest.raises(ValueError, match="cannot become held"):
        ledger.reclaim(grant)
    ledger.release(grant)
    with pytest.raises(ValueError, match="cannot become released"):
        ledger.release(grant)
    assert ledger.available() == {"CPU": 1.0}


@pytest.mark.parametrize("gpu_ids", [["0"], ["0", "0"]])
def test_each_gpu_needs_a_name(gpu_ids: list[str]) -> None:
    with pytest.raises(ValueError, match="different GPU ids"):
        Ledger(request_of({"GPU": 2}), gpu_ids)


def test_is_idle_when_nothing_is_taken() -> None:
    ledger = Ledger(request_of({"CPU": 1, "GPU": 1, "license": 2}))
    assert ledger.is_idle
    grant = ledger.acquire(request_of({"license": 1}))
    forced = ledger.force_acquire(request_of({"another": 1}))
    assert not ledger.is_idle
    ledger.release(grant)
    assert not ledger.is_idle
    ledger.release(forced)
    assert ledger.is_idle
    ledger.set_total("license", 0)
    assert ledger.is_idle

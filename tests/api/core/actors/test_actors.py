"""Actors without a cluster: see `rabbitry.core.actors`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from rabbitry.core.actors import calls as calls_module
from rabbitry.core.actors import directory as directory_module
from rabbitry.core.actors.actors import Actors
from rabbitry.core.actors.calls import ActorCalls
from rabbitry.core.actors.creating import ActorCreating, creation_pin
from rabbitry.core.actors.directory import ActorDirectory
from rabbitry.core.actors.ends import ActorEnds
from rabbitry.core.submit.plan import Line
from rabbitry.core.submit.plans import END_METHOD
from rabbitry.exceptions import ActorAlreadyExistsError, ActorDiedError, load_task_error
from rabbitry.object_ref import made_here
from rabbitry.options import ActorOptions, MethodOptions
from rabbitry_broker.errors import BrokerError, RabbitryBrokerError
from rabbitry_broker.ids import TaskIds, object_id
from rabbitry_broker.messages import Completion
from rabbitry_broker.store.actors import DEAD
from tests.api.core.fakes import DETACHED, JOB, OURS, SIGNER, FakeStore, Surroundings, result_id

ONE, TWO = b"1" * 16, b"2" * 16


class FakeRecords(FakeStore):
    """Records of actors."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: tuple[bytes, bytes] | None = None
        self.of: dict[bytes, tuple[str, bytes]] = {}
        self.by: dict[tuple[str, str], bytes] = {}
        self.facts: dict[bytes, list[bytes | None]] = {}

    def create(self, actor_id: bytes, **fields: Any) -> tuple[bytes, bytes] | None:
        self._note("create", actor_id, fields)
        return self.taken

    def states(self, actor_ids: list[bytes]) -> list[tuple[str, bytes]]:
        self._note("states", actor_ids)
        return [self.of.get(each, ("ALIVE", b"")) for each in actor_ids]

    def kill(self, actor_id: bytes, *, no_restart: bool, cause: bytes) -> str:
        self._note("kill", actor_id, no_restart)
        return self.of.get(actor_id, ("ALIVE", b""))[0]

    def holder(
        self, namespace: str, name: str, *fields: str, likely: bytes | None
    ) -> tuple[bytes | None, list[bytes | None]]:
        self._note("holder", name, likely)
        actor_id = self.by.get((namespace, name))
        return actor_id, [None] * len(fields) if actor_id is None else self.fields(actor_id, *fields)

    def names(self) -> list[tuple[str, str]]:
        return list(self.by)

    def fields(self, actor_id: bytes, *names: str) -> list[bytes | None]:
        return self.facts.get(actor_id, [b"ALIVE", None])[-len(names) :]


class FakeInbox:
    """Keeps what is made known."""

    def __init__(self, accept: Callable[[Completion], None]) -> None:
        self.accept = accept
        self.looked: list[bytes] = []
        self.drained = 0

    def drain(self) -> None:
        self.drained += 1

    def look_for(self, keys: list[bytes]) -> None:
        self.looked += keys

    def make_known(self, items: list[bytes], *, tasks: int = 0, ended: Any = ()) -> None:
        self.accept(Completion(b"", tasks, 0.0, items, list(ended)))


class FakeSubmitter:
    """Accepts calls, or fails."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.fails: Exception | None = None

    def submit(self, plan: Any, args: Any, kwargs: Any, task_id: bytes | None = None) -> Any:
        if self.fails is not None:
            raise self.fails
        assert task_id is not None
        return self.handles(plan, task_id)

    def handles(self, plan: Any, task_id: bytes) -> Any:
        self.around.flight.count += 1
        return made_here(object_id(task_id, 1), self.around.references)


@dataclass
class Case:
    """All that deals with actors, over fakes."""

    around: Surroundings = field(default_factory=Surroundings)
    sent: list[tuple[str, Any]] = field(default_factory=list)
    fails: Exception | None = None

    def __post_init__(self) -> None:
        around = self.around
        self.records: Any = FakeRecords()
        self.inbox = FakeInbox(around.known().accept)
        self.submitter = FakeSubmitter(around)
        self.exported: list[bytes] = []
        self.lingering: set[bytes] = set()
        plans = around.plans()
        self.directory = ActorDirectory(
            around.identity, around.job, self.records, flush=lambda: self.sent.append(("flush", None))
        )
        self.calls = ActorCalls(
            OURS, around.ids, around.flight, self.directory, plans=plans, submitter=self.submitter, inbox=self.inbox,
            store=around.store, records=self.records, lingering=self.lingering,
            expect_late=lambda: self.sent.append(("expects late", None)),
        )  # fmt: skip
        self.ends = ActorEnds(
            around.ids, around.flight, plans, self.calls, dead=self.directory.dead, add_call=self.add_call,
            unpin=around.references.unpin, ending=deque(), lingering=self.lingering,
        )  # fmt: skip
        case: Any = self
        self.creating = ActorCreating(
            around.identity, around.job, self.records, self.directory, plans=plans, exports=case, arguments=case,
            outbox=case, references=around.references, ids=around.ids, detached_ids=TaskIds(DETACHED, JOB),
            register=around.register, environments=around.environments(), kept_job=case,
        )  # fmt: skip
        self.actors = Actors(around.flight, self.directory, self.creating, self.calls, self.ends)

    # What creating takes of others:

    def hold(self) -> bytes:
        return b"j" * 16

    def export(self, digest: bytes, pickled: bytes, source: Any) -> None:
        self.exported.append(digest)

    def pack(self, task_id: bytes, args: Any, kwargs: Any, *, pin_as: bytes) -> Any:
        refs = tuple(arg._id for arg in args)
        self.around.references.pin(pin_as, refs)
        return b"P", list(refs), {}

    def _take(self, way: str, plan: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.sent.append((way, plan))

    def add(self, plan: Any, task: Any) -> None:
        self._take("sent", plan)

    def add_parked(self, plan: Any, task: Any) -> None:
        self._take("parked", plan)

    def add_call(self, plan: Any, task: Any) -> None:
        self._take("called", plan)

    def create(self, *args: Any, **options: Any) -> Any:
        return self.actors.create(
            cls=Case, pickled=(b"c" * 16, b"pickled"), class_name="Actor", options=ActorOptions.from_kwargs(**options),
            args=args, kwargs={}, handle_facts=b"facts", is_async=False,
        )  # fmt: skip

    def call(self, actor_id: bytes = ONE) -> Any:
        return self.actors.call(self.actors.method_plan(actor_id, "Actor", "work", MethodOptions()), (), {})


@pytest.fixture
def case() -> Case:
    return Case()


# -- creating --------------------------------------------------------------------------------------------------------


def test_an_actor_is_put_on_record_and_then_made(case: Case) -> None:
    actor_id, ref, facts = case.create()
    assert facts is None and case.directory.owned == {ref._id: actor_id}
    assert case.exported == [b"c" * 16] and case.around.registered
    assert [way for way, _ in case.sent] == ["sent"]
    assert [call[0] for call in case.records.named("set_frame")] == [actor_id], "restarts need it"


def test_a_constructor_s_refs_are_pinned_as_long_as_the_actor_lives(case: Case) -> None:
    actor_id, _, _ = case.create(made_here(result_id(9), case.around.references))
    assert case.sent[0][0] == "parked"
    assert list(case.around.references._pins) == [creation_pin(actor_id)]


def test_a_detached_actor_belongs_to_nobody(case: Case) -> None:
    _, ref, _ = case.create(lifetime="detached", name="mine")
    assert ref._id.startswith(DETACHED) and not case.directory.owned
    fields = case.records.named("create")[0][1]
    assert (fields["fields"]["detached"], fields["holds"]) == (b"1", b"c" * 16 + b"j" * 16)


def test_a_name_that_is_taken_is_refused_or_that_actor_returned(case: Case) -> None:
    case.records.taken = (TWO, SIGNER.seal(b"facts" + TWO, b"its facts"))
    with pytest.raises(ActorAlreadyExistsError, match="'mine'"):
        case.create(name="mine")
    assert case.create(name="mine", get_if_exists=True) == (TWO, None, b"its facts")
    assert not case.sent


def test_an_actor_that_was_not_accepted_does_not_keep_its_name(case: Case) -> None:
    case.fails = BrokerError("away")
    with pytest.raises(BrokerError):
        case.create(made_here(result_id(9), case.around.references))
    assert [call[1] for call in case.records.named("kill")] == [True]
    assert not case.around.references._pins and not case.directory.owned


# -- calls -----------------------------------------------------------------------------------------------------------


def test_calls_are_known_until_their_results_come(case: Case) -> None:
    ref = case.call()
    assert case.actors.pending(ONE) == 1 and case.inbox.drained == 1
    case.inbox.make_known([ref._id, b"N"], tasks=1)
    assert case.actors.pending(ONE) == 0 and not case.actors.tracked


def test_a_call_that_was_not_accepted_is_forgotten(case: Case) -> None:
    case.submitter.fails = TypeError("cannot pickle")
    with pytest.raises(TypeError):
        case.call()
    assert not case.actors.tracked


def test_methods_of_one_actor_share_a_line(case: Case) -> None:
    plans = [case.actors.method_plan(ONE, "Actor", name, MethodOptions()) for name in "ab"]
    assert plans[0].line is plans[1].line is not case.calls.line(TWO)


def test_a_call_to_an_actor_known_to_be_dead_fails_here(case: Case) -> None:
    case.actors.kill(ONE, no_restart=True)
    assert case.sent == [("flush", None)], "what was called before is called"
    ref = case.call()
    assert isinstance(load_task_error(case.around.values[ref._id][1:]), ActorDiedError)
    assert case.around.store.named("commit") == [(OURS, [ref._id, case.around.values[ref._id]])]
    assert case.around.flight.count == 0 and not case.actors.tracked


def test_an_actor_that_will_be_restarted_is_called_on(case: Case) -> None:
    case.actors.kill(ONE, no_restart=False)
    assert case.call()._id not in case.around.values


def test_the_result_that_stands_is_what_a_failed_call_gets(case: Case) -> None:
    case.directory.note_dead(ONE, b"E...")
    fetch = case.around.store.fetch
    case.around.store.fetch = lambda keys: [b"N" for _ in fetch(keys)]
    assert case.around.values[case.call()._id] == b"N"


def test_calls_to_actors_that_died_unheard_are_failed(case: Case) -> None:
    case.calls.check_pending()
    assert not case.records.calls, "nothing is looked at for nothing"
    first, second = case.call(ONE), case.call(TWO)
    case.records.of[ONE] = (DEAD, b"cause")
    case.calls.check_pending()
    assert case.around.values == {first._id: b"Ecause"} and second._id not in case.around.values
    assert list(case.directory.dead) == [ONE]
    assert ("expects late", None) in case.sent, "the node that answers for the dead may do so after us"


def test_results_that_nobody_holds_are_looked_for_while_they_keep_an_actor(case: Case) -> None:
    ref = case.call(ONE)
    case.lingering.add(ONE)
    case.calls.check_pending()
    assert case.inbox.looked == [ref._id]


def test_lines_to_the_dead_are_swept(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "LINES_KEPT", 2)
    case.calls._sweep_at = 2
    case.records.of[ONE] = (DEAD, b"")
    for actor_id in (ONE, TWO, b"3" * 16):
        case.calls.line(actor_id)
    assert set(case.calls.lines) == {TWO, b"3" * 16}


# -- finding ---------------------------------------------------------------------------------------------------------


def test_who_had_a_name_last_is_asked_for_along_with_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for actor_id in (ONE, TWO):
        case.records.facts[actor_id] = [b"ALIVE", SIGNER.seal(b"facts" + actor_id, b"facts")]
    case.records.by = {("space", "it"): ONE}
    assert [case.actors.lookup("it", None)[0] for _ in range(2)] == [ONE, ONE]
    case.records.by["space", "it"] = TWO
    assert [case.actors.lookup("it", None)[0] for _ in range(2)] == [TWO, TWO]
    assert [likely for _, likely in case.records.named("holder")] == [None, ONE, ONE, TWO]
    monkeypatch.setattr(directory_module, "NAMES_KEPT", 1)
    case.records.by["space", "other"] = ONE
    case.actors.lookup("other", None)
    assert case.directory._last_named == {("space", "other"): ONE}


def test_actors_are_found_by_name_in_the_session_s_namespace_or_another(case: Case) -> None:
    case.records.by = {("space", "mine"): ONE, ("other", "theirs"): TWO, ("space", "dead"): b"3" * 16}
    for actor_id, state in ((ONE, b"ALIVE"), (TWO, b"ALIVE"), (b"3" * 16, DEAD.encode())):
        case.records.facts[actor_id] = [state, SIGNER.seal(b"facts" + actor_id, b"facts")]
    assert case.actors.lookup("mine", None) == (ONE, b"facts")
    assert case.actors.lookup("theirs", "other") == (TWO, b"facts")
    for name in ("theirs", "dead"):
        with pytest.raises(ValueError, match=f"'{name}'.*'space'"):
            case.actors.lookup(name, None)
    assert case.actors.list_named(False) == [("space", "mine"), ("space", "dead")]
    assert len(case.actors.list_named(True)) == 3
    assert case.actors.facts_of(ONE) == b"facts"
    with pytest.raises(ValueError, match="is known"):
        case.actors.facts_of(b"4" * 16)


def test_whether_actors_live_is_asked_only_where_some_were_made(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not case.actors.any_alive() and not case.records.calls
    case.directory.made = set()
    monkeypatch.setattr(directory_module, "MADE_MOST", 1)
    case.directory._made_most = 1
    case.directory.created(result_id(1), ONE)
    case.records.of[ONE] = (DEAD, b"")
    case.directory.created(result_id(2), TWO)
    assert case.directory.made == {TWO}, "the dead are cleared out when there are many"
    assert case.actors.any_alive()
    case.records.of[TWO] = ("", b"")
    assert not case.actors.any_alive()


def test_the_dead_that_are_remembered_are_limited(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "DEAD_KEPT", 2)
    for number in range(5):
        case.directory.note_dead(bytes([number]) * 16, b"E")
    assert len(case.directory.dead) == 2


def test_who_leaves_ends_its_actors(case: Case) -> None:
    case.directory.owned[result_id(1)] = ONE
    case.directory.leave({TWO})
    assert {call[0] for call in case.records.named("kill")} == {ONE, TWO} and not case.directory.owned


# -- ends ------------------------------------------------------------------------------------------------------------


def test_an_actor_without_handles_is_told_to_end_after_what_was_sent(case: Case) -> None:
    actor_id, _, _ = case.create(made_here(result_id(9), case.around.references))
    case.calls.line(actor_id)
    case.ends.ending.append(actor_id)
    case.ends.send()
    way, plan = case.sent[-1]
    assert (way, plan.header.method) == ("called", END_METHOD)
    assert not case.around.references._pins and not case.calls.lines


def test_calls_keep_their_actor_until_they_end(case: Case) -> None:
    ref = case.call(ONE)
    case.ends.ending.append(ONE)
    case.ends.send()
    case.ends.send_lingering()
    assert not case.sent and case.lingering == {ONE}
    case.inbox.make_known([ref._id, b"N"], tasks=1)
    case.ends.send_lingering()
    assert [way for way, _ in case.sent] == ["called"] and not case.lingering


def test_an_actor_that_could_not_be_told_is_told_later(case: Case) -> None:
    case.ends.ending.append(ONE)
    case.fails = RabbitryBrokerError("away")
    with pytest.raises(RabbitryBrokerError):
        case.ends.send()
    case.fails = None
    case.ends.send()
    assert len(case.sent) == 1 and not case.ends.ending
    assert isinstance(case.sent[0][1].line, Line)

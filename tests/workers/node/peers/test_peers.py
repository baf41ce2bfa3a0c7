"""Signs of life, what other nodes said, announcements and control messages; with a store in memory."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from rabbitry_broker.errors import ConnectionLost
from rabbitry_broker.messages import decode, encode
from rabbitry_broker.queue_names import node_queue, parse
from rabbitry_broker.resources import HEAD, UNITS, ResourceRequest
from rabbitry_workers.node.model.waiting import Waiting
from rabbitry_workers.node.peers import others as others_module
from rabbitry_workers.node.peers.controls import FORMS, Controls
from rabbitry_workers.node.peers.head import Head
from rabbitry_workers.node.peers.heartbeat import Heartbeat
from rabbitry_workers.node.peers.names import connection_name
from rabbitry_workers.node.peers.others import Others
from rabbitry_workers.node.peers.watch import AGAIN_SECONDS, RESCAN_SECONDS, ControlWatch
from tests.workers.node.fakes import World

CPU = ResourceRequest.parse("CPU=1")
OTHER = b"n" * 28


class Alive(World):
    def __init__(self) -> None:
        super().__init__(lease=10.0)
        self.room: dict[str, float] = {"CPU": 1.0}
        self.doubts = 0
        self.signs: list[float] = []
        room: Any = SimpleNamespace(available=lambda: self.room, for_others=lambda: dict(self.room), gpus=list)
        self.others = Others(self.node)
        self.heartbeat = Heartbeat(
            self.node, self.others, room, list, list, lambda _, lease: self.signs.append(lease),
            lambda: self.life.draining, self.doubt, Head(self.node, self.ledger),
            Waiting(self.lanes, self.executors, {}),
        )  # fmt: skip

    def doubt(self) -> None:
        self.doubts += 1

    def another(self, node: bytes = OTHER, **fields: Any) -> None:
        """Another node gives its sign of life."""
        record = {
            "id": node, "totals": {"CPU": 4.0}, "room": {"CPU": 2.0}, "labels": {"zone": "a"}, "draining": False,
            **fields,
        }  # fmt: skip
        keys = self.node.keys
        self.store.data[keys.node(node)] = self.node.signer.seal(b"node" + node, encode(record))
        self.store.data.setdefault(keys.nodes, {})[node] = b""

    def dies(self, node: bytes = OTHER) -> None:
        del self.store.data[self.node.keys.node(node)]


@pytest.fixture
def world() -> Alive:
    return Alive()


# -- the head ----------------------------------------------------------------------------------------------------------


def test_the_first_node_is_the_head_and_says_so_at_once(world: Alive):
    changes: list[bool] = []
    world.heartbeat._head.on_change = lambda: changes.append(True)
    world.heartbeat.run_once()
    stored = world.store.data[world.node.keys.node(world.node.id)]
    record = decode(world.node.signer.open(b"node" + world.node.id, stored))
    assert record["totals"] == {"CPU": 1.0, HEAD: 1.0}
    assert world.ledger.available() == {"CPU": 1.0, HEAD: 1.0}
    world.heartbeat.run_once()
    assert changes == [True]


def test_a_node_that_finds_another_head_is_none_and_becomes_it_when_that_is_gone(world: Alive):
    key = world.node.keys.head
    world.store.data[key] = OTHER
    world.heartbeat.run_once()
    assert HEAD not in world.ledger.available()
    del world.store.data[key]
    world.heartbeat.run_once()
    assert world.ledger.available()[HEAD] == 1.0
    world.store.data[key] = OTHER  # this node was silent for long
    world.heartbeat.run_once()
    assert world.ledger.available() == {"CPU": 1.0}


@pytest.mark.parametrize("draining", [True, False])
def test_a_head_that_leaves_makes_room_for_another(world: Alive, draining: bool):
    world.heartbeat.run_once()
    if draining:
        world.life.drain()
        world.heartbeat.run_once()
        assert HEAD not in world.heartbeat.record()["totals"]
    else:
        world.heartbeat.close(work_left=False)
    assert world.node.keys.head not in world.store.data


def test_a_node_that_was_forgotten_writes_the_clusters_mark_again(world: Alive):
    world.node.config.mark = b"ours"
    world.heartbeat.run_once()
    assert world.node.keys.cluster not in world.store.data, "it may be another's by now"
    world.dies(world.node.id)  # Redis has lost all that it had
    world.heartbeat.run_once()
    assert world.store.data[world.node.keys.cluster] == b"ours"


def test_what_runs_keeps_its_part_of_the_head(world: Alive):
    world.heartbeat.run_once()
    grant = world.ledger.acquire(ResourceRequest.from_floats({HEAD: 0.25}))
    assert grant is not None
    world.store.data[world.node.keys.head] = OTHER
    world.heartbeat.run_once()
    world.ledger.release(grant)
    assert world.ledger.free_units() == {"CPU": UNITS}
    del world.store.data[world.node.keys.head]
    world.heartbeat.run_once()
    assert world.ledger.free_units() == {"CPU": UNITS, HEAD: UNITS}


def test_a_head_that_would_never_end_goes(world: Alive, monkeypatch: pytest.MonkeyPatch):
    do = world.store._do
    monkeypatch.setattr(world.store, "_do", lambda name, *args: -1 if name == b"PTTL" else do(name, *args))
    world.store.data[world.node.keys.head] = b"nonsense"
    world.heartbeat.run_once()
    world.heartbeat.run_once()
    assert world.ledger.available()[HEAD] == 1.0


# -- heartbeat ---------------------------------------------------------------------------------------------------------


def test_the_record_says_where_large_values_are_served(world: Alive):
    assert world.heartbeat.record()["peers"] is None
    world.heartbeat._place = ("192.0.2.1", 4000)
    assert decode(encode(world.heartbeat.record()))["peers"] == ["192.0.2.1", 4000]


def test_a_beat_writes_the_record_and_tells_the_store(world: Alive):
    world.store.data[world.node.keys.head] = OTHER
    world.heartbeat.start()
    world.loop.run(3.5)
    assert world.signs == [10.0] * 3
    assert world.node.keys.node(world.node.id) in world.store.data
    assert list(world.store.data[world.node.keys.nodes]) == [world.node.id]
    assert world.doubts == 0


def test_a_node_whose_lease_ended_doubts_what_it_has(world: Alive):
    world.heartbeat.run_once()
    world.dies(world.node.id)
    world.heartbeat.run_once()
    assert world.doubts == 1


def test_beats_go_on_when_redis_is_away_and_end_with_the_node(world: Alive):
    world.store.data[world.node.keys.head] = OTHER
    world.heartbeat.start()
    world.store.away = 1
    world.loop.run(2.5)
    assert len(world.signs) == 2
    world.heartbeat.close(work_left=False)
    world.loop.run(10.0)
    assert len(world.signs) == 2


@pytest.mark.parametrize("work_left", [True, False])
def test_a_node_that_leaves_work_stays_on_record(world: Alive, work_left: bool):
    world.heartbeat.run_once()
    world.heartbeat.close(work_left=work_left)
    assert (world.node.keys.nodes in world.store.data) is work_left
    assert world.node.keys.node(world.node.id) not in world.store.data


def test_a_lone_node_says_between_two_beats_what_is_free_for_programs_that_ask(world: Alive):
    world.store.data[world.node.keys.head] = OTHER
    world.heartbeat.run_once()
    world.heartbeat._looked_at -= 1.0
    world.heartbeat.refresh(waiting=True)
    assert len(world.signs) == 1, "nothing changed, and there is nobody to look at"
    world.room = {"CPU": 0.0}
    assert world.heartbeat.has_news()
    world.heartbeat.refresh(waiting=False)
    assert len(world.signs) == 2
    assert not world.heartbeat.has_news()


def test_news_are_told_between_two_beats(world: Alive):
    world.store.data[world.node.keys.head] = OTHER
    world.another()
    world.heartbeat.run_once()
    assert len(world.signs) == 1
    world.room = {"CPU": 0.0}
    assert world.heartbeat.has_news()
    world.heartbeat.refresh(waiting=False)
    assert len(world.signs) == 1, "it has just beaten"
    world.heartbeat._looked_at -= 1.0
    world.heartbeat.refresh(waiting=False)
    assert len(world.signs) == 2
    assert world.store.told_news[-1] == (False, True), "only who looks for room reads it"
    world.dies()
    world.heartbeat._looked_at -= 1.0
    world.heartbeat.refresh(waiting=False)
    assert world.others.has_others, "nothing waits here, and the others are told nothing"
    world.heartbeat.refresh(waiting=True)
    assert len(world.signs) == 2, "a look gives no sign"
    assert not world.others.has_others


def test_the_record_lives_on_while_redis_is_full(world: Alive):
    world.heartbeat.stay()
    assert world.store.sent[-1][0] == b"PEXPIRE"


# -- others ------------------------------------------------------------------------------------------------------------


def test_others_are_known_with_their_room_and_labels(world: Alive):
    world.another()
    world.heartbeat.run_once()
    others = world.others
    assert others.has_others
    assert others.count == 1
    assert others.is_alive(OTHER)
    assert others.room_elsewhere(CPU)
    assert not others.room_elsewhere(ResourceRequest.parse("CPU=3"))


def test_what_was_sent_to_another_node_takes_room_there_until_it_could_have_said_so(
    world: Alive, monkeypatch: pytest.MonkeyPatch
):
    world.another(host=b"there")
    world.heartbeat.run_once()
    assert [world.others.take_room([b"there"], CPU, "") for _ in range(3)] == [OTHER, OTHER, None]
    world.others.update({})
    assert not world.others.room_elsewhere(CPU), "perhaps it runs still, and was not told of yet"
    later = time.monotonic() + others_module.TAKEN_SECONDS + 0.1
    monkeypatch.setattr(others_module.time, "monotonic", lambda: later)
    world.others.update({})  # the tasks ended between two beats: nothing that was said of it has changed
    assert world.others.take_room([b"there"], CPU, "") == OTHER
    world.another(host=b"there", room={"CPU": 1.0})
    world.others.update({OTHER: world.store.data[world.node.keys.node(OTHER)]})
    assert [world.others.take_room([b"there"], CPU, "") for _ in range(2)] == [OTHER, None], "what it says now counts"


def test_a_share_of_a_gpu_is_no_trouble(world: Alive):
    world.another(room={"CPU": 2.0, "GPU": 1.5})
    world.heartbeat.run_once()
    assert world.others.room_elsewhere(ResourceRequest.parse("GPU=1"))
    assert not world.others.room_elsewhere(ResourceRequest.parse("GPU=2"))


def test_room_inside_groups_is_known(world: Alive):
    world.another(inside=[(b"group", [{"CPU": 1.0}, {"GPU": 1.5}])])
    world.heartbeat.run_once()
    assert world.others.room_inside(b"group", ResourceRequest.parse("GPU=1"))
    assert not world.others.room_inside(b"group", ResourceRequest.parse("CPU=1,GPU=1"))
    assert not world.others.room_inside(b"other", ResourceRequest.parse("CPU=1"))


def test_one_that_drains_has_no_room(world: Alive):
    world.another(draining=True)
    world.heartbeat.run_once()
    assert not world.others.room_elsewhere(CPU)


def test_a_node_without_a_sign_is_lost_for_a_while(world: Alive, monkeypatch: pytest.MonkeyPatch):
    world.another()
    world.heartbeat.run_once()
    world.dies()
    assert not world.others.is_alive(OTHER)
    world.heartbeat.run_once()
    assert not world.others.has_others
    assert world.others.lost_a_node()
    monkeypatch.setattr(others_module, "LOSS_SECONDS", -1.0)
    assert not world.others.lost_a_node()
    del world.store.data[world.node.keys.nodes][OTHER]
    world.heartbeat.run_once()
    assert world.others._lost == {}


def test_a_node_that_left_in_order_is_not_lost_but_gone(world: Alive):
    gone: list[bool] = []
    world.others.on_gone = lambda: gone.append(True)
    world.another()
    world.heartbeat.run_once()
    world.dies()
    del world.store.data[world.node.keys.nodes][OTHER]
    world.heartbeat.run_once()
    assert gone == [True]
    assert not world.others.lost_a_node()


def test_nobody_is_lost_just_after_redis_was_away(world: Alive):
    world.another()
    world.heartbeat.run_once()
    world.dies()
    world.store.trusted = False
    world.heartbeat.run_once()
    assert world.others.has_others
    assert world.others.is_alive(OTHER)


def test_a_forged_record_is_put_aside(world: Alive):
    world.another()
    world.store.data[world.node.keys.node(OTHER)] = b"forged, and long enough to be sealed"
    world.heartbeat.run_once()
    assert not world.others.has_others
    assert world.store.aside


def listing(*nodes: bytes) -> bytes:
    return b"".join(b"id=1 name=%s db=0\n" % connection_name(each).encode() for each in nodes)


@pytest.mark.parametrize(("connected", "lost"), [("both", False), ("one", True), ("none", False)])
def test_a_node_whose_connection_is_gone_is_lost_before_its_lease_ends(world: Alive, connected: str, lost: bool):
    world.another()
    world.heartbeat.run_once()
    nodes = {"both": (world.node.id, OTHER), "one": (world.node.id,), "none": ()}[connected]
    world.store.data[b"CLIENT LIST"] = listing(*nodes)
    assert world.others.lost_a_node() is lost


def test_queues_of_nodes_that_are_not_known_may_be_abandoned(world: Alive):
    world.another()
    world.heartbeat.run_once()
    assert not world.others.may_be_abandoned("task.CPU=1")
    assert not world.others.may_be_abandoned(node_queue(world.node.id))
    assert not world.others.may_be_abandoned(node_queue(OTHER))
    assert world.others.may_be_abandoned(node_queue(b"x" * 28))
    assert world.others.is_orphaned(parse(node_queue(b"x" * 28)))
    assert not world.others.is_orphaned(parse("task.CPU=1"))


def test_who_plans_is_known_from_the_beat(world: Alive, monkeypatch: pytest.MonkeyPatch):
    free: list[bool] = []
    world.heartbeat.on_planning_free = lambda: free.append(True)
    world.heartbeat.run_once()
    assert not world.heartbeat.may_plan()
    world.heartbeat._planner_until = 0.0
    assert world.heartbeat.may_plan(), "its lease has ended"
    beat = world.store._node_beat
    monkeypatch.setattr(world.store, "_node_beat", lambda *args: [*beat(*args)[:5], [b"", -2], 0, 0, 0, []])
    assert not free
    world.heartbeat.run_once()
    assert world.heartbeat.may_plan()
    assert free


def test_silent_drivers_are_told_of_by_the_beat(world: Alive):
    told: list[bool] = []
    world.heartbeat.on_silent = lambda: told.append(True)
    world.heartbeat.run_once()
    assert not told
    world.store.silent = 1
    world.heartbeat.run_once()
    assert told == [True]


# -- control messages --------------------------------------------------------------------------------------------------

MESSAGES: dict[str, list[Any]] = {
    "cancel": [[b"task"], b"client", True, False],
    "kill-actor": [b"actor", True, b"cause"],
    "drain": [b"node"],
    "group-asked": [b"group"],
    "group-planned": [b"group", b"token", [(b"node", [(0, "CPU=1")])]],
    "group-kept": [b"group", [(b"node", [(0, "CPU=1")])]],
    "group-dropped": [b"group", b"token"],
    "group-stands": [b"group"],
    "group-ended": [b"group"],
    "groups-wait": [b"node"],
    "node-room": [b"node", b"record"],
    "flush-output": [b"job", b"token"],
    "job-ended": [b"job"],
    "clients-gone": [[b"client"]],
    "set-up": [b"job", b"code"],
    "ask": [b"node", b"question"],
    "copy": [b"host", b"object", False],
}


@pytest.mark.parametrize("word", sorted(FORMS))
def test_every_word_reaches_its_handler(world: Alive, word: str):
    heard: list[Any] = []
    handlers: Any = {each: lambda *rest, each=each: heard.append((each, *rest)) for each in FORMS}
    Controls(world.node, handlers).act(world.node.signer.seal(b"control", encode([word, *MESSAGES[word]])))
    assert heard == [(word, *MESSAGES[word])]


@pytest.mark.parametrize("message", [["strange"], ["drain", 7], ["drain"], {}, 7])
def test_what_is_no_control_message_is_put_aside(world: Alive, message: Any):
    controls = Controls(world.node, dict.fromkeys(FORMS, print))
    controls.act(world.node.signer.seal(b"control", encode(message)))
    controls.act(b"forged")
    assert len(world.store.aside) == 2


def test_a_word_without_a_handler_is_a_bug(world: Alive):
    with pytest.raises(ValueError, match="drain"):
        Controls(world.node, {word: print for word in FORMS if word != "drain"})


# -- announcements -----------------------------------------------------------------------------------------------------


class Line:
    """The connection on which announcements come."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.broken = False

    def send(self, *command: Any) -> None:
        pass

    def fileno(self) -> int:
        return 9

    def poll(self) -> list[Any]:
        if self.broken:
            raise ConnectionLost("broken")
        messages, self.messages = self.messages, []
        return messages


class Listening(World):
    def __init__(self) -> None:
        super().__init__()
        self.line = Line()
        self.opened = 0
        self.considered: list[tuple[str, bool, bool]] = []
        self.told: list[bytes] = []
        self.store.open_connection = self.open  # type: ignore[attr-defined]
        self.listening = 0
        self.watch = ControlWatch(self.node, self, self.tell, self.listens)

    def open(self, name: str) -> Line:
        self.opened += 1
        return self.line

    def listens(self) -> None:
        self.listening += 1

    def tell(self, message: bytes) -> None:
        self.told.append(message)
        if message == b"trouble":
            raise ValueError(message)

    def consider(self, queue: str, *, announced: bool = True, prioritized: bool = False) -> None:
        self.considered.append((queue, announced, prioritized))

    def tidy(self, announced: Any) -> None:
        pass

    def hear(self, *messages: Any) -> None:
        self.line.messages += messages
        self.loop.handlers[9](9, 1)


def test_announced_queues_and_control_messages_are_heard_though_one_of_them_is_trouble():
    world = Listening()
    keys = world.node.keys
    world.watch.start()
    world.store.data[keys.prioritized] = [b"q1"]
    world.hear(
        [b"subscribe", b"x", 1],
        [b"message", keys.queues_channel, b"q1"],
        [b"message", keys.control_channel, b"trouble"],
        [b"message", keys.control_channel, b"next"],
    )
    assert world.considered == [("q1", True, True)]
    assert world.told == [b"trouble", b"next"]


def test_missed_queues_are_found_by_the_next_look():
    world = Listening()
    world.watch.start()
    world.store.data[world.node.keys.queues] = [b"q1"]
    world.loop.run(RESCAN_SECONDS)
    assert world.considered == [("q1", False, False)]


def test_queues_that_nothing_says_have_changed_are_not_read_again():
    world = Listening()
    world.watch.start()
    world.store.data[world.node.keys.queues] = [b"q1"]
    world.loop.run(RESCAN_SECONDS)
    world.watch.told((1, 0))
    world.loop.run(RESCAN_SECONDS)
    assert len(world.considered) == 1
    for change in (lambda: world.watch.told((2, 0)), world.watch.look_again):
        change()
        world.loop.run(RESCAN_SECONDS)
        world.watch.told((1, 0))
        world.loop.run(RESCAN_SECONDS)
    assert len(world.considered) == 3
    world.store.trusted = False
    world.loop.run(2 * RESCAN_SECONDS)
    assert len(world.considered) == 5, "whose queues are abandoned cannot be told just after an outage"


def test_a_connection_that_broke_is_opened_again_soon():
    world = Listening()
    world.watch.start()
    world.line.broken = True
    world.hear()
    assert 9 not in world.loop.handlers
    world.line.broken = False
    world.store.away = 1
    world.loop.run(4 * AGAIN_SECONDS)
    assert world.opened == 2
    assert 9 in world.loop.handlers
    channels = world.node.keys.queues_channel, world.node.keys.control_channel
    world.hear([b"subscribe", channels[0], 1])
    assert world.listening == 0
    world.hear([b"subscribe", channels[1], 2])
    assert world.listening == 1, "what was said meanwhile is to be found out"

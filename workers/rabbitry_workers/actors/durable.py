"""Durable actors: the instance's state is committed with the results of its calls, in one Lua call.

    actor key:state   = sealed pickle of the state
    actor key:applied = sealed MessagePack {caller: [first, last, first, last, ...]}

*Applied* positions say which calls the state already contains: every caller numbers its calls to an actor 1, 2, 3,
...; those from each `first` to its `last` are applied. A call delivered again that is applied is answered from its
result. So each call takes effect exactly once: either state and result are both committed, or neither is and the call
runs (again). A call whose exception is to be retried has not taken effect: it is sent to the process once more.

With `durable="explicit"` the state is written only with calls that asked for it, the applied positions with every
call: a call whose result was given is not run again, but what it did to the instance is lost if no checkpoint followed.

The epoch fences: the agent counts it up for each process it starts, and a commit with an old one is refused whole.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.messages import encode
from rabbitry_broker.serialization import pack, pack_in_band, unpack
from rabbitry_broker.shared_memory import ObjectStoreFull
from rabbitry_broker.store.actors import ActorRecords
from rabbitry_workers.channel import BYE
from rabbitry_workers.positions import Positions

if TYPE_CHECKING:
    from rabbitry_workers.actors.host import ActorHost

log = logging.getLogger("rabbitry")

LARGE_STATE_BYTES = 16 * 1024 * 1024
UNCOUNTED_BYTES = 1024  # a state of up to this much is committed also when the store is full of values
# Longer than Redis keeps the buffer of the last commit. The call comes again, and waits again, as often as a call may
# end its process.
ROOM_SECONDS = 4.0
CALLERS_KEPT = 1000  # more than that are looked through for those that are gone
GONE_SECONDS = 3600.0  # what a caller sent that is gone for so long has come, or never will


class DurableState:
    """The state of one durable actor, as its host keeps and commits it. Locked by the committer."""

    def __init__(self, host: ActorHost) -> None:
        self._host = host
        self._key = host.client.keys.actor(host.header.actor)
        self._context = b"state" + host.header.actor
        self._records = ActorRecords(host.client.store)
        self._applied: dict[bytes, Positions] = {}
        self._look_at = CALLERS_KEPT
        self._gone_since: dict[bytes, float] = {}
        self.explicit = host.spec.durable == "explicit"
        self.calling = False  # a call runs: the instance may be half changed
        self._wanted = threading.Event()
        self._wanted.set()  # the state after the constructor is always committed

    def restore(self, cls: type) -> bool:
        """Set up the instance from the committed state; False if there is none (the constructor runs)."""
        stored, positions = self._records.state(self._host.header.actor)
        if stored is None or positions is None:
            return False
        signer = self._host.client.signer
        pickled = signer.open(self._context, stored)
        applied = self._records.open_applied(self._host.header.actor, positions)
        state = unpack(pickled)
        instance: Any = object.__new__(cls)
        if hasattr(instance, "__setstate__"):
            instance.__setstate__(state)
        else:
            instance.__dict__.update(state)
        self._host.instance = instance
        self._applied = {caller: Positions(bounds) for caller, bounds in applied.items()}
        return True

    def checkpoint(self) -> None:
        """`rabbitry.checkpoint()`: commit the state with the running call (durable="explicit")."""
        self._wanted.set()

    def is_applied(self, caller: bytes, position: int) -> bool:
        """True if the state contains the caller's call number `position`."""
        applied = self._applied.get(caller)
        return applied is not None and position in applied

    def applied(self, caller: bytes, position: int) -> None:
        """The caller's call number `position` has taken effect on the instance."""
        applied = self._applied.get(caller)
        if applied is None:
            applied = self._applied[caller] = Positions()
            if len(self._applied) > self._look_at:
                self._forget_callers()
        applied.add(position)

    def _forget_callers(self) -> None:
        """Forget callers that are gone for long: every process that ever called would be written with each commit."""
        store, now = self._host.client.store, time.monotonic()
        self._look_at = len(self._applied) + CALLERS_KEPT // 10
        callers = list(self._applied)
        try:
            alive = store.pipeline([(b"EXISTS", store.keys.client(caller)) for caller in callers])
        except RabbitryBrokerError:
            return  # the next new caller comes
        gone = [caller for caller, lives in zip(callers, alive, strict=True) if not lives]
        self._gone_since = {caller: self._gone_since.get(caller, now) for caller in gone}
        for caller, since in list(self._gone_since.items()):
            if now - since > GONE_SECONDS:
                del self._applied[caller], self._gone_since[caller]

    def commit_fields(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Return (actor key, epoch, state or b"", calls) for the commit that is being made."""
        host = self._host
        signer = host.client.signer
        state = b""
        # The items of a generator are committed while it runs, but not the state, which may be half changed. All calls
        # before it are contained in the committed one (see `SerialRunner`).
        if not self.calling and (not self.explicit or self._wanted.is_set()):
            self._wanted.clear()
            state = signer.seal(self._context, self._pickle())
            self._require_room(len(state))
        applied = {caller: each.bounds for caller, each in self._applied.items()}
        calls = signer.seal(self._context + b"applied", encode(applied))
        return self._key, str(host.epoch).encode(), state, calls

    def _require_room(self, size: int) -> None:
        """See to it that a state of `size` bytes leaves room to those who keep the cluster going.

        Redis holds the old state still when it has the new one twice or more, in the command and in buffers for the
        next such command; and a script that begins below `maxmemory` may end above it.

        Raises:
            ObjectStoreFull: there is none; the call has not taken effect.
        """
        if size > UNCOUNTED_BYTES:
            try:
                self._host.client.store.room.require(3 * size, patience=ROOM_SECONDS)
            except ObjectStoreFull as error:
                self._tell(f"the state of durable actor {self._host.spec.short_name} cannot be committed: {error}")
                raise

    def _tell(self, why: str) -> None:
        """This process ends, since it cannot commit: those whose calls are lost with it are told why."""
        log.error("%s", why)
        self._host.channel.send([BYE, why])

    def _pickle(self) -> bytes:
        instance = self._host.instance
        # object.__getstate__ exists from Python 3.11 on; before, only classes that define it have one.
        own = getattr(type(instance), "__getstate__", None)
        default = getattr(object, "__getstate__", None)
        state = own(instance) if own is not None and own is not default else instance.__dict__
        packed = pack(state)
        if packed.buffers:
            # The store keeps one string. Not by plain pickle, which writes what is of `__main__` by name alone.
            return pack_in_band(state).data
        if len(packed.data) > LARGE_STATE_BYTES:
            why = (
                f"the state of durable actor {self._host.spec.short_name} is {len(packed.data)} bytes; it is committed "
                "with every call. Use durable='explicit' and rabbitry.checkpoint(), or keep large parts elsewhere."
            )
            self._tell(why)
            raise RabbitryBrokerError(why)
        return packed.data

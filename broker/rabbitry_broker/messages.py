"""The wire format: task batches, completions, and what agent and executor say to each other.

HOT PATH (watched by `benchmarks/`, workloads `async_*`): msgspec in MessagePack, tuples and not classes for what
exists once a task. Everything is versioned by `FRAME_MAGIC`.

A queue message is one or more *frames*, each signed on its own, so that an agent can put the specs of several released
tasks into one message without signing them anew:

    frame   = magic (2) | length of payload (4, big endian) | signature (16) | payload
    payload = msgpack [header, [task, ...]]

A frame of another kind may stand before those of a released task: the record of an object it waited for, sealed as it
stands in the store, so that its executor need not ask for it:

    frame   = b"WI" | length of payload | signature of the record | payload
    payload = owner (24 hexadecimal digits) | rest of the object id (16) | record

The header holds what all tasks of the batch share and is itself MessagePack bytes: agents pass it on unread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import msgspec

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.ids import SUFFIX_BYTES, TASK_BYTES
from rabbitry_broker.signing import Signer

FRAME_MAGIC: Final = b"W1"
RECORD_MAGIC: Final = b"WI"
_OWNER_DIGITS: Final = 24
_PREFIX_BYTES: Final = 2 + 4 + 16
MAX_PAYLOAD_BYTES: Final = 512 * 1024 * 1024

MAX_RETURNS: Final = 100_000
"""Results that a task may have: each is an object of its own, known to its owner before the task has run."""
STREAMING: Final = -1
DYNAMIC: Final = -2

PRIORITIES: Final = range(10)
"""Of tasks: 0 is the default, 9 comes first."""

KIND_TASK: Final = 0
KIND_ACTOR_CREATION: Final = 1
KIND_ACTOR_CALL: Final = 2

_SIGNING_CONTEXT: Final = b"frame"


class MalformedMessage(RabbitryBrokerError):
    """A message or stored value that rabbitry did not write, or not this version of it. It is put aside, never run."""


class TaskHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all tasks of a batch share.

    Attributes:
        function: content hash of the pickled function (or class, for an actor creation).
        name: what the task is called in logs and errors.
        owner: the client whose inbox hears of the results.
        job: the job it belongs to.
        resources: the resource class it needs.
        kind: one of the `KIND_*` constants.
        num_returns: results a task has, or `STREAMING` / `DYNAMIC`.
        max_retries: runs after the first that a crash may cause; -1 for no limit.
        retry_exceptions: pickled tuple of exception classes that are retried too; b"" none, b"*" all.
        retry_delay: seconds before the first retry, doubled with each one.
        max_calls: executor processes exit after so many runs of the function; 0 for no limit.
        priority: 0 (default) to 9 (first).
        env: what the executor must find around it (`runtime_environments`), b"" for nothing of its own.
        lifetime: "" (ends with its owner) or "detached".
        actor: id of the actor, for the actor kinds.
        method: the method, for actor calls.
        group: the concurrency group, for actor calls.
        backpressure: results of a stream that may be unread before the producer pauses; 0 for no limit.
        namespace: the namespace the submitter lives in.
        extra: for actor creations, MessagePack of `ActorSpec`.
        elsewhere: for tasks on a node's own queue: the queue they go to if that node is gone or could never run them;
            "" if they fail then.
        impatient: they go there (or fail) also if the node has no room at the moment.
        bundle: for what runs in a placement group: the queue of the bundle, or of any of the group's; "" for none.
        captures: what it submits runs in the same group, unless it says otherwise.
        events: what becomes of them is recorded (`events.py`).
        trace: context of the span that has submitted them, "" for none (`rabbitry.tracing`).
        written: what the function or method is called where it is written; "" if that is `name`.
    """

    function: bytes
    name: str
    owner: bytes
    job: bytes
    resources: str
    kind: int = KIND_TASK
    num_returns: int = 1
    max_retries: int = 3
    retry_exceptions: bytes = b""
    retry_delay: float = 0.0
    max_calls: int = 0
    priority: int = 0
    env: bytes = b""
    lifetime: str = ""
    actor: bytes = b""
    method: str = ""
    group: str = ""
    backpressure: int = 0
    namespace: str = ""
    extra: bytes = b""
    elsewhere: str = ""
    impatient: bool = False
    bundle: str = ""
    captures: bool = False
    events: bool = True
    trace: str = ""
    written: str = ""


class ActorSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node must know of an actor besides its class and arguments.

    Attributes:
        running: resource class it holds while it lives (may be less than it needs to be placed).
        concurrency: calls at a time in the default group.
        groups: calls at a time in each named group.
        is_async: the class has coroutine methods.
        durable: "" | "always" | "explicit".
        name: its name, "" for none.
        class_name: name of its class, with what that stands in: `Outer.Inner`.
        facts: what handles are made of.
        out_of_order: calls of one caller may overtake each other.
        replicas: of Redis, that must have what a durable actor commits before callers are told.
    """

    running: str
    concurrency: int
    groups: dict[str, int]
    is_async: bool
    durable: str
    name: str
    class_name: str
    facts: bytes
    out_of_order: bool = False
    replicas: int = 0

    @property
    def short_name(self) -> str:
        """The name of its class alone, as in the names of its calls."""
        return self.class_name.rpartition(".")[2]


TaskId = Annotated[bytes, msgspec.Meta(min_length=TASK_BYTES, max_length=TASK_BYTES)]

# (task id, packed arguments, attempt, ids the arguments depend on, records of dependencies that came along,
#  position in its caller's line for actor calls)
Task = tuple[TaskId, bytes, int, list[bytes], dict[bytes, bytes], int]


def as_task(fields: list[Any] | tuple[Any, ...]) -> Task:
    """Return a task whose fields came over a local socket (as a list)."""
    task_id, arguments, attempt, dependencies, inline, position = fields
    return task_id, arguments, attempt, dependencies, inline, position


class Completion(msgspec.Struct, array_like=True, gc=False):
    """What an executor puts on an owner's inbox after a commit.

    Attributes:
        function: the function that ran, for the owner's statistics; b"" if mixed.
        tasks: how many tasks ended.
        busy: seconds they took together.
        items: object id, record, object id, record, ...
        ended: ids of tasks that ended without an item of index 1 (no results, streams).
        note: a control note for the owner ("" for plain completions).
    """

    function: bytes
    tasks: int
    busy: float
    items: list[bytes]
    ended: list[bytes] = []
    note: str = ""


_encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode
_decode_payload: Final = msgspec.msgpack.Decoder(tuple[bytes, list[Task]]).decode
_decode_header: Final = msgspec.msgpack.Decoder(TaskHeader).decode
_decode_completion: Final = msgspec.msgpack.Decoder(Completion).decode
_decode_any: Final = msgspec.msgpack.Decoder().decode

encode: Final = _encode


class UndecodableError(msgspec.DecodeError, ValueError):
    """These bytes are no MessagePack. A ValueError with every msgspec, as with newer ones alone."""


def decode(data: bytes) -> Any:
    """Return what `encode` made these bytes of.

    Raises:
        UndecodableError: it did not make them.
    """
    try:
        return _decode_any(data)
    except msgspec.DecodeError as error:
        raise UndecodableError(str(error)) from None


decode_actor_spec: Final[Callable[[bytes], ActorSpec]] = msgspec.msgpack.Decoder(ActorSpec).decode

_headers: dict[bytes, TaskHeader] = {}
_HEADERS_KEPT: Final = 4096


def encode_header(header: TaskHeader) -> bytes:
    """Return the bytes of `header` as they stand in frames."""
    return _encode(header)


def decode_header(data: bytes) -> TaskHeader:
    """Return the header of these bytes (remembered: few distinct ones exist).

    Raises:
        MalformedMessage: not a header.
    """
    header = _headers.get(data)
    if header is None:
        try:
            header = _decode_header(data)
        except msgspec.MsgspecError as error:
            raise MalformedMessage(f"task header: {error}") from error
        if len(_headers) >= _HEADERS_KEPT:
            _headers.clear()
        _headers[data] = header
    return header


def encode_frame(signer: Signer, header: bytes, tasks: list[Task]) -> bytes:
    """Return a signed frame of `tasks` under the encoded `header`."""
    payload = _encode((header, tasks))
    return b"".join((FRAME_MAGIC, len(payload).to_bytes(4, "big"), signer.sign(_SIGNING_CONTEXT, payload), payload))


def decode_batches(signer: Signer, body: bytes) -> list[tuple[bytes, TaskHeader, list[Task]]]:
    """Return (header bytes, header, tasks) for each frame of a message.

    Raises:
        MalformedMessage: see `decode_frames`; or a header is none.
    """
    return [(header_bytes, decode_header(header_bytes), tasks) for header_bytes, tasks in decode_frames(signer, body)]


def decode_frames(signer: Signer, body: bytes) -> Iterator[tuple[bytes, list[Task]]]:
    """Yield (header bytes, tasks) for each frame of a message.

    Raises:
        MalformedMessage: truncated, oversized, of another version, or not signed with one of our secrets.
    """
    at, end = 0, len(body)
    along: dict[bytes, bytes] = {}
    if not end:
        raise MalformedMessage("empty message")
    while at < end:
        magic = body[at : at + 2]
        if magic != FRAME_MAGIC and magic != RECORD_MAGIC:
            raise MalformedMessage(f"unknown frame version {body[at : at + 2]!r}, expected {FRAME_MAGIC!r}")
        size = int.from_bytes(body[at + 2 : at + 6], "big")
        start = at + _PREFIX_BYTES
        if size > MAX_PAYLOAD_BYTES or start + size > end:
            raise MalformedMessage(f"frame of {size} bytes in a message with {max(0, end - start)} left")
        payload = body[start : start + size]
        if magic == RECORD_MAGIC:
            object_id, record = _read_record(payload)
            if not signer.verify(body[at + 6 : start], object_id, record):
                raise MalformedMessage("the signature of a record that came along does not match")
            along[object_id] = record
            at = start + size
            continue
        if not signer.verify(body[at + 6 : start], _SIGNING_CONTEXT, payload):
            raise MalformedMessage("signature does not match: wrong secret, or not written by rabbitry")
        try:
            header, tasks = _decode_payload(payload)
        except msgspec.MsgspecError as error:
            raise MalformedMessage(f"frame payload: {error}") from error
        yield header, [_with_records(task, along) for task in tasks] if along else tasks
        at = start + size


def _read_record(payload: bytes) -> tuple[bytes, bytes]:
    try:
        owner = bytes.fromhex(payload[:_OWNER_DIGITS].decode("ascii"))
    except ValueError as error:
        raise MalformedMessage(f"a record that came along names no object: {error}") from error
    rest = _OWNER_DIGITS + SUFFIX_BYTES
    return owner + payload[_OWNER_DIGITS:rest], payload[rest:]


def _with_records(task: Task, along: dict[bytes, bytes]) -> Task:
    known = {key: along[key] for key in task[3] if key in along}
    return (*task[:4], {**task[4], **known}, task[5]) if known else task


def encode_completion(signer: Signer, owner: bytes, completion: Completion) -> bytes:
    """Return the inbox entry for `completion`, signed for `owner` alone."""
    return signer.seal(b"inbox" + owner, _encode(completion))


def decode_completion(signer: Signer, owner: bytes, data: bytes) -> Completion:
    """Return the completion in an inbox entry.

    Raises:
        MalformedMessage: not signed for this owner, or not a completion.
    """
    try:
        return _decode_completion(signer.open(b"inbox" + owner, data))
    except (msgspec.MsgspecError, RabbitryBrokerError) as error:
        raise MalformedMessage(f"inbox entry: {error}") from error

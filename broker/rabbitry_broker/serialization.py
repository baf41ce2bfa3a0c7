"""Values to bytes and back: pickle protocol 5, out-of-band buffers for what is large, cloudpickle for code.

HOT PATH (`benchmarks/`: every workload with arguments or results). Lone scalars and calls with nothing but scalars go
through `pickle.dumps`. Everything else goes through cloudpickle, so that functions and classes of `__main__` and
notebooks travel by value: plain pickle would write `__main__.f` by reference without a word, and fail on the worker.

cloudpickle's pickler is C pickle with one hook, called for instances and code only: a list of numbers costs the same
through both. What makes `cloudpickle.dumps` slow is making a pickler (3 us), so small values share picklers; looking
into values to find those that need none costs more than that saves (measured: 32 numbers are 1.5 us through a shared
pickler, 4.3 us with a look at each).

A ref inside a value reports itself by `note_ref` while it is pickled; `Packed.refs` names all of them.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Sequence
from typing import Any, Final

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.pickling import PROTOCOL, CodePickler, noting
from rabbitry_broker.recursion import deeper_recursion

OUT_OF_BAND_BYTES: Final = 4 * 1024
"""Buffers smaller than this are always in the stream."""
IN_BAND_BYTES: Final = 48 * 1024
"""Buffers of less than this together stay in the stream: such a value is one record in the store, and no file."""
LARGE_BYTES: Final = 64 * 1024
"""Bytes and bytearrays from this size on travel out of band. Pickle's own limit for writing them as they are."""

_REUSE_BYTES: Final = 2 * 1024  # of stream; more may have grown the pickler's memo, and clearing that takes time too
_SCALARS: Final = frozenset((type(None), bool, int, float, str))
_GLANCE: Final = 4  # items of a tuple to look at: as long as that costs less than what it saves


class Packed:
    """A pickled value.

    Attributes:
        data: the pickle stream.
        buffers: what it refers to out of band, in order. They are views of the value's own memory, not copies.
        refs: ids of the objects whose refs are inside, in order, each once.
    """

    __slots__ = ("buffers", "data", "refs")

    def __init__(self, data: bytes, buffers: Sequence[memoryview] = (), refs: tuple[bytes, ...] = ()) -> None:
        self.data = data
        self.buffers = buffers
        self.refs = refs

    @property
    def nbytes(self) -> int:
        """Bytes of stream and buffers together."""
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)


PACKED_NONE: Final = Packed(pickle.dumps(None, PROTOCOL))
"""What `pack(None)` returns."""


# -- picklers --------------------------------------------------------------------------------------------------------

_FRAME: Final = pickle.FRAME[0]
_OUT_OF_BAND: Final = {
    # The pickle operations for `bytes(next buffer)`.
    kind: b"cbuiltins\n%s\n" % kind.__name__.encode() + pickle.NEXT_BUFFER + pickle.TUPLE1 + pickle.REDUCE
    for kind in (bytes, bytearray)
}


class _Sink:
    """The file that a pickler writes to: the parts of the stream, and the buffers that are not in it."""

    __slots__ = ("buffers", "in_band_bytes", "parts")

    def __init__(self) -> None:
        self.parts: list[bytes | bytearray] = []
        self.buffers: list[memoryview] = []
        self.in_band_bytes = 0

    def clear(self) -> None:
        """Forget all parts and buffers."""
        self.parts.clear()
        self.buffers = []
        self.in_band_bytes = 0

    def write(self, part: bytes | bytearray) -> None:
        if len(part) >= LARGE_BYTES and self._divert(part):
            return
        self.parts.append(part)

    def _divert(self, part: bytes | bytearray) -> bool:
        """Take large bytes out of the stream, at any depth of the value, without copying them.

        Pickle does not copy bytes of 64 KiB and more into its frames: it writes the operation and the length, then
        the object itself. So where a part is no frame and the stream ends in just that, the part is the object, and
        the operation is replaced by one that reads the next buffer. What follows (the entry in the memo) stays as it
        is, so bytes that occur twice are still one object. Should a pickler write otherwise, the bytes stay in band.
        """
        size = len(part)
        kind = type(part)
        if not self.parts or kind not in _OUT_OF_BAND:
            return False
        if part[0] == _FRAME and int.from_bytes(part[1:9], "little") == size - 9:
            return False
        before = self.parts[-1]
        if kind is bytearray:
            header = pickle.BYTEARRAY8 + size.to_bytes(8, "little")
        elif size <= 0xFFFFFFFF:
            header = pickle.BINBYTES + size.to_bytes(4, "little")
        else:
            header = pickle.BINBYTES8 + size.to_bytes(8, "little")
        if not before.endswith(header):
            return False
        self.parts[-1] = before[: -len(header)] + _OUT_OF_BAND[kind]
        self.buffers.append(memoryview(part))
        return True

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Say whether a buffer stays in the stream; keep it if not."""
        view = buffer.raw()
        size = view.nbytes
        if size < OUT_OF_BAND_BYTES or self.in_band_bytes + size <= IN_BAND_BYTES:
            self.in_band_bytes += size
            return True
        self.buffers.append(view)
        return False


class _Packer(CodePickler):
    """A pickler with a sink of its own, for one value after the other."""

    def __init__(self) -> None:
        self.sink = _Sink()
        super().__init__(self.sink, self.sink.take)

    def restart(self) -> None:
        """Forget what was written: the value is pickled once more."""
        self.clear_memo()
        self.sink.clear()


_dump_in_c: Final = pickle.Pickler.dump
_idle: list[_Packer] = []  # packers that nobody uses; `pop` and `append` are atomic, so any thread may


def pack(value: Any) -> Packed:
    """Pickle a value.

    Arrays, bytes and whatever else offers buffers is not copied: change none of it before the buffers are written.
    Arrays come back read-only.

    Raises:
        TypeError: it cannot be pickled; the message names the path to the culprit.
        Exception: whatever else a `__reduce__` or `__getstate__` inside raises, with the path in a note.
    """
    if value is None:
        return PACKED_NONE
    kind = type(value)
    if kind in _SCALARS or (kind is bytes and len(value) < LARGE_BYTES):
        return Packed(pickle.dumps(value, PROTOCOL))
    if kind is tuple and len(value) <= _GLANCE:
        # A small tuple, or a call's (args, kwargs) without kwargs.
        is_call = len(value) == 2 and type(value[0]) is tuple and type(value[1]) is dict and not value[1]
        for each in value[0] if is_call else value:
            if type(each) not in _SCALARS:
                break
        else:
            return Packed(pickle.dumps(value, PROTOCOL))
    try:
        packer = _idle.pop()
    except IndexError:
        packer = _Packer()
    refs: dict[bytes, None] = {}
    _dump(packer, value, refs)
    sink = packer.sink
    parts = sink.parts
    data = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
    packed = Packed(data, sink.buffers or (), tuple(refs) if refs else ())
    # cloudpickle keeps notes about code from one dump to the next: such a packer is not used again.
    if len(data) - sink.in_band_bytes <= _REUSE_BYTES and not packer.wrote_code:
        parts.clear()
        sink.in_band_bytes = 0
        if sink.buffers:
            sink.buffers = []
        packer.clear_memo()  # it keeps the values alive
        _idle.append(packer)
    return packed


def pack_in_band(value: Any, name: str = "value", *, note_refs: bool = True) -> Packed:
    """Pickle a value into one stream, without buffers; see `pack`.

    Args:
        value: what to pickle.
        name: what to call it in errors.
        note_refs: whether the caller looks after `Packed.refs`; if not, refs learn that nobody does (`note_ref`).
    """
    stream = io.BytesIO()
    refs: dict[bytes, None] | None = {} if note_refs else None
    _dump(CodePickler(stream, None), value, refs, name)
    return Packed(stream.getvalue(), (), tuple(refs or ()))


def _dump(pickler: CodePickler, value: Any, refs: dict[bytes, None] | None, name: str = "value") -> None:
    """Pickle `value`; add the refs inside to `refs`."""
    outer = noting.refs
    noting.refs = refs
    try:
        try:
            _dump_in_c(pickler, value)  # cloudpickle's own `dump` adds 0.2 us and the next two lines
        except RecursionError:
            _dump_deep(pickler, value, refs, name)
    except Exception as error:
        if isinstance(error.__cause__, RecursionError):
            raise  # said all there is to say
        noting.refs = outer
        # Looking for the culprit is slow, and nothing else needs that module.
        from rabbitry_broker.unpicklable import explain

        explained = explain(value, error, name)
        try:
            if explained is error:
                raise
            raise explained from error
        finally:
            del explained  # see `without_frames`
    finally:
        noting.refs = outer


def _dump_deep(pickler: CodePickler, value: Any, refs: dict[bytes, None] | None, name: str) -> None:
    """Pickle from the start what was too deep; refs are noted as in `_dump`, which calls this.

    Raises:
        PicklingError: it is too deep even so.
    """
    pickler.restart()
    if refs:
        refs.clear()
    try:
        with deeper_recursion():
            _dump_in_c(pickler, value)
    except RecursionError as error:
        raise pickle.PicklingError(
            f"{name} is nested too deeply to be pickled: values as deep as sys.getrecursionlimit() "
            f"({sys.getrecursionlimit()}) are possible. Send its parts in a flat list, or raise that limit."
        ) from error


# -- reading ---------------------------------------------------------------------------------------------------------


class UnpickleError(RabbitryBrokerError):
    """A value cannot be put together here; what its pickle stream, or a class's own code, raised is the cause."""


def unpack(data: bytes | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """Return the value of a pickle stream and its buffers.

    Raises:
        UnpickleError: it raised an error; if a module is missing here, the message says what to do.
    """
    try:
        if buffers:
            return pickle.loads(data, buffers=buffers)
        return pickle.loads(data)
    except ModuleNotFoundError as error:
        raise UnpickleError(str(missing_module(error))) from error
    except Exception as error:
        raise UnpickleError(f"{type(error).__name__}: {error}") from error


def missing_module(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error of a module that this process lacks, with what to do about it."""
    name = error.name or str(error)
    return ModuleNotFoundError(
        f"No module named {name!r} in this process, but a value or function sent to it needs it. Send it along, if it "
        'is yours: init(runtime_env={"working_dir": "auto"}), or its directory in "py_modules". Have it installed for '
        f'the job, if it is a package: init(runtime_env={{"pip": [{name.partition(".")[0]!r}]}}). Or install it on the '
        "nodes (the image of docker-compose.yml installs what RABBITRY_EXTRA_REQUIREMENTS in .env names).",
        name=error.name,
        path=error.path,
    )

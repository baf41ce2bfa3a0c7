"""Ids as users see them: fixed-length bytes with a type, under the names that Ray gives them.

What the bytes mean is laid down in `rabbitry_broker.ids`; these classes only show it. They are immutable, hashable and
picklable, and equal to ids of the same class and bytes only.
"""

from __future__ import annotations

import builtins
import os
from typing import Any, ClassVar, Final, TypeVar

from rabbitry.arguments import shown, wrong_type
from rabbitry_broker.ids import ACTOR_BYTES, JOB_BYTES, NODE_BYTES, TASK_BYTES

PLACEMENT_GROUP_BYTES: Final = 18

_MAX_JOB: Final = 2 ** (8 * JOB_BYTES) - 1

_Id = TypeVar("_Id", bound="BaseID")
_Random = TypeVar("_Random", bound="_RandomID")


class BaseID:
    """An id of a fixed number of bytes.

    Args:
        id: its bytes.

    Raises:
        TypeError: `id` is not bytes.
        ValueError: it has the wrong length.
    """

    __slots__ = ("_bytes",)

    _SIZE: ClassVar[int] = 0
    _bytes: bytes

    def __init__(self, id: bytes) -> None:
        if not isinstance(id, bytes):
            raise TypeError(f"a {type(self).__name__} is made of bytes, not of {shown(id)} ({type(id).__name__})")
        if len(id) != self._SIZE:
            raise ValueError(f"a {type(self).__name__} has {self._SIZE} bytes, not {len(id)}")
        object.__setattr__(self, "_bytes", id)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

    @classmethod
    def from_binary(cls: type[_Id], id_bytes: bytes) -> _Id:
        """Return the id of these bytes; the same as `cls(id_bytes)`."""
        return cls(id_bytes)

    @classmethod
    def from_hex(cls: type[_Id], hex_id: str | bytes) -> _Id:
        """Return the id of this hex text.

        Raises:
            TypeError: it is no text.
            ValueError: it is no hex text, or of the wrong length. (Ray logs that and returns the nil id.)
        """
        if not isinstance(hex_id, (str, bytes)):
            raise wrong_type(f"the hex text of a {cls.__name__}", hex_id, "text")
        text = hex_id.decode("ascii", "replace") if isinstance(hex_id, bytes) else hex_id
        try:
            return cls(bytes.fromhex(text))
        except ValueError:
            raise ValueError(f"{shown(text)} is no {cls.__name__}: that has {2 * cls._SIZE} hex digits") from None

    @classmethod
    def nil(cls: type[_Id]) -> _Id:
        """Return the id that stands for none: all bits set."""
        return cls(b"\xff" * cls._SIZE)

    @classmethod
    def size(cls) -> int:
        """Return the number of bytes."""
        return cls._SIZE

    def binary(self) -> bytes:
        """Return the bytes."""
        return self._bytes

    def hex(self) -> str:
        """Return the bytes as hex text."""
        return self._bytes.hex()

    def is_nil(self) -> bool:
        """Return True if it stands for none."""
        return self._bytes == b"\xff" * self._SIZE

    def __bytes__(self) -> bytes:
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaseID) and type(self) is type(other) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bytes.hex()})"

    def __reduce__(self) -> Any:
        return type(self), (self._bytes,)


class _RandomID(BaseID):
    __slots__ = ()

    @classmethod
    def from_random(cls: type[_Random]) -> _Random:
        """Return a new random id."""
        return cls(os.urandom(cls._SIZE))


class UniqueID(_RandomID):
    """An id that is random throughout."""

    __slots__ = ()
    _SIZE = NODE_BYTES


class NodeID(UniqueID):
    """Id of a node."""

    __slots__ = ()


class WorkerID(UniqueID):
    """Id of an executor or driver process."""

    __slots__ = ()


class FunctionID(UniqueID):
    """Id of a function."""

    __slots__ = ()


class ActorClassID(UniqueID):
    """Id of an actor class."""

    __slots__ = ()


class ClusterID(UniqueID):
    """Id of a cluster."""

    __slots__ = ()


class JobID(BaseID):
    """Id of a job: a driver and all that it submits.

    >>> JobID.from_int(5)
    JobID(05000000)
    """

    __slots__ = ()
    _SIZE = JOB_BYTES

    @classmethod
    def from_int(cls, value: int) -> JobID:
        """Return the id of job number `value`.

        Raises:
            AssertionError: it is more than four bytes hold (Ray's choice).
            OverflowError: it is negative (Ray's choice).
            TypeError: it is no int.
        """
        if not isinstance(value, builtins.int):
            raise wrong_type("a job number", value, "an int of 0 or more")
        if value < 0:
            raise OverflowError(f"a job number is 0 or more, not {shown(value)}")
        if value > _MAX_JOB:
            raise AssertionError(f"a job number is at most {_MAX_JOB}, not {shown(value)}")
        return cls(value.to_bytes(JOB_BYTES, "little"))

    def int(self) -> int:
        """Return the job's number."""
        return int.from_bytes(self._bytes, "little")


class TaskID(BaseID):
    """Id of a task: the client that submitted it, its number there, and its job."""

    __slots__ = ()
    _SIZE = TASK_BYTES

    def job_id(self) -> JobID:
        """Return the job it belongs to."""
        return JobID(self._bytes[-JOB_BYTES:])

    def actor_id(self) -> ActorID:
        """Return the nil actor of its job, as Ray does for a task that is no actor's; the id does not tell which is."""
        return ActorID(b"\xff" * (ACTOR_BYTES - JOB_BYTES) + self._bytes[-JOB_BYTES:])


class ActorID(_RandomID):
    """Id of an actor, which ends with its job's."""

    __slots__ = ()
    _SIZE = ACTOR_BYTES

    @property
    def job_id(self) -> JobID:
        """The job it belongs to."""
        return JobID(self._bytes[-JOB_BYTES:])


class PlacementGroupID(_RandomID):
    """Id of a placement group, which ends with its job's."""

    __slots__ = ()
    _SIZE = PLACEMENT_GROUP_BYTES

    @classmethod
    def of(cls, job_id: JobID) -> PlacementGroupID:
        """Return a new id in a job."""
        return cls(os.urandom(PLACEMENT_GROUP_BYTES - JOB_BYTES) + job_id.binary())

"""Where the processes of a group find each other: an actor that knows where rank 0 listens.

The actor belongs to rank 0's process. It ends once all have come, so that others can be a group of the same name, and
with the process: nothing is left of a group whose processes are gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rabbitry import actor, calls
from rabbitry.actor import ActorHandle
from rabbitry.decorator import remote
from rabbitry.exceptions import RayActorError
from rabbitry.util.node_address import get_node_ip_address

_POLL_SECONDS = 0.02


class _Board:
    """Knows one thing."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def read(self) -> Any:
        return self.what


def put_up(name: str, what: Any) -> ActorHandle:
    """Return an actor that others can ask for `what` by the name (`read`). It lives as long as the handle.

    Raises:
        ValueError: the name is taken.
    """
    board: ActorHandle = remote(num_cpus=0, max_restarts=-1)(_Board).options(name=name).remote(what)
    return board


def read(name: str) -> Any:
    """Return what was put up under a name.

    Raises:
        ValueError: nothing was.
    """
    try:
        return calls.get(actor.get_actor(name).read.remote())
    except RayActorError as error:
        raise ValueError(f"{name!r} has just been taken down") from error


class Meeting:
    """How the processes of one group find rank 0.

    Args:
        group_name: of the group.

    Attributes:
        address: of this host.
    """

    def __init__(self, group_name: str) -> None:
        self._name = f"collective_group_{group_name}"
        self._board: ActorHandle | None = None
        self.address = get_node_ip_address()

    def announce(self, port: int, timeout: timedelta) -> None:
        """Tell where this process listens. While another group of this name comes together, wait for it.

        Raises:
            ValueError: that took longer than the timeout.
        """
        deadline = time.monotonic() + timeout.total_seconds()
        while self._board is None:
            try:
                self._board = put_up(self._name, (self.address, port))
            except ValueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def joined(self, connect: Callable[[str, int, timedelta], Any], timeout: timedelta) -> Any:
        """Return what `connect` makes of rank 0's address, once that is known.

        Raises:
            TimeoutError: it was not there in time.
        """
        deadline = time.monotonic() + timeout.total_seconds()
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"rank 0 did not come to the group within {timeout.total_seconds()} s")
            try:
                address, port = read(self._name)
            except ValueError:
                time.sleep(_POLL_SECONDS)
                continue
            return connect(address, port, timedelta(seconds=left))

    def end(self) -> None:
        """Take the announcement back."""
        if self._board is not None:
            actor.kill(self._board)
            self._board = None

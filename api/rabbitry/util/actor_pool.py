"""A pool of actors that share work: each gets the next value when it is done with the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rabbitry import current
from rabbitry.actor import ActorHandle
from rabbitry.arguments import wrong_type
from rabbitry.calls import get, wait
from rabbitry.exceptions import ActorDiedError, ActorError, TaskError

V = TypeVar("V")


class ActorPool:
    """Hand values to the actors of a pool, one at a time each.

    `function(actor, value)` of all methods calls a method of the actor and returns its ref. The actor is busy until the
    result was asked for. One thread uses a pool.

    Args:
        actors: handles on the pool's actors.

    Example:
        >>> pool = ActorPool([Squarer.remote() for _ in range(2)])  # doctest: +SKIP
        >>> list(pool.map(lambda actor, x: actor.square.remote(x), [1, 2, 3]))  # doctest: +SKIP
        [1, 4, 9]
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        if not isinstance(actors, Iterable):
            raise wrong_type("actors", actors, "a list of handles on actors")
        self._idle = list(actors)
        self._under_way: dict[Any, tuple[int, ActorHandle]] = {}  # by ref: its number, and who works on it
        self._numbered: dict[int, Any] = {}  # refs by number
        self._waiting: deque[tuple[Callable[[Any, Any], Any], Any]] = deque()
        self._submitted = 0
        self._next = 0  # the number of the result that `get_next` returns

    def map(self, function: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Return an iterator over the results for all values, in their order.

        Whatever was submitted before and not fetched is dropped. The work is handed out at once as far as there are
        idle actors, the rest of it while results are taken.

        Args:
            function: called as `function(actor, value)`; returns a ref.
            values: what to call it with.
        """
        self._drop_results()
        for value in values:
            self.submit(function, value)
        return self._results(self.get_next)

    def map_unordered(self, function: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Return an iterator over the results for all values, as they become ready; see `map`."""
        self._drop_results()
        for value in values:
            self.submit(function, value)
        return self._results(self.get_next_unordered)

    def _results(self, next_result: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield next_result()

    def _drop_results(self) -> None:
        while self.has_next():
            try:
                self.get_next_unordered(timeout=0, ignore_if_timedout=True)
            except TimeoutError:
                continue

    def submit(self, function: Callable[[Any, V], Any], value: V) -> None:
        """Give one value to an idle actor, or to the next one that becomes idle.

        Args:
            function: called as `function(actor, value)`; returns a ref.
            value: what to call it with.

        Raises:
            TypeError: `function` cannot be called.
        """
        if not callable(function):
            raise wrong_type("function", function, "something to call with an actor and a value")
        if not self._idle:
            self._waiting.append((function, value))
            return
        actor = self._idle.pop()
        ref = function(actor, value)
        key = tuple(ref) if isinstance(ref, list) else ref  # a list: of a method with several results
        self._under_way[key] = self._submitted, actor
        self._numbered[self._submitted] = key
        self._submitted += 1
        # Now: if the result that is asked for next is there already, nothing else would send it for a millisecond.
        current.client().outbox.flush()

    def has_next(self) -> bool:
        """True if there are results to fetch."""
        return bool(self._under_way)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Return the next result in the order of submission.

        Args:
            timeout: seconds to wait for it; None for ever.
            ignore_if_timedout: on a time-out drop the task's result, and let its actor go on with the next value.

        Raises:
            StopIteration: there is none.
            TimeoutError: it is not ready in time.
            ValueError: `get_next_unordered` returned that of the last submission already.
            Exception: what the task raised.
        """
        if not self.has_next():
            raise StopIteration("there are no more results in this pool")
        if self._next >= self._submitted:
            raise ValueError(
                "get_next() has nothing in order after get_next_unordered(): take the other results with the latter."
            )
        key = self._numbered[self._next]
        ready = timeout is None or bool(wait([_first(key)], timeout=timeout)[0])
        if not ready and not ignore_if_timedout:
            raise TimeoutError(f"the next result was not ready within {timeout} s")
        self._next += 1
        return self._fetch(key, ready, timeout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Return a result that is ready, of whichever submission.

        Args:
            timeout: seconds to wait for one; None for ever.
            ignore_if_timedout: on a time-out drop the result that was submitted first, and let its actor go on.

        Raises:
            StopIteration: there is none.
            TimeoutError: none is ready in time.
            Exception: what the task raised.
        """
        if not self.has_next():
            raise StopIteration("there are no more results in this pool")
        keys = {_first(key): key for key in self._under_way}
        ready, waiting = wait(list(keys), timeout=timeout)
        if not ready and not ignore_if_timedout:
            raise TimeoutError(f"no result was ready within {timeout} s")
        key = keys[(ready or waiting)[0]]
        self._next = max(self._next, self._under_way[key][0] + 1)
        return self._fetch(key, bool(ready), timeout)

    def _fetch(self, key: Any, ready: bool, timeout: float | None) -> Any:
        """Take a task off the pool, give its actor the next one, and return its result."""
        number, actor = self._under_way.pop(key)
        del self._numbered[number]
        if not ready:
            self._free(actor)
            raise TimeoutError(f"a result was not ready within {timeout} s, and will be ignored: {key}")
        try:
            result = get(list(key) if type(key) is tuple else key)
        except ActorError as error:
            if not _is_dead(error):
                self._free(actor)
            raise
        except BaseException:
            self._free(actor)
            raise
        self._free(actor)
        return result

    def _free(self, actor: ActorHandle) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """True if an actor is idle and nothing waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """Take an idle actor out of the pool and return it; None if all are busy."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor to the pool.

        Raises:
            ValueError: it is in the pool already.
        """
        if actor in self._idle or any(actor == busy for _, busy in self._under_way.values()):
            raise ValueError(f"{actor!r} is in this pool already")
        self._free(actor)


def _first(key: Any) -> Any:
    return key[0] if type(key) is tuple else key


def _is_dead(error: ActorError) -> bool:
    """True if the error is the death of the actor that was called, not one that the call met."""
    return isinstance(error, ActorDiedError) and not isinstance(error, TaskError)

"""What a compiled graph returns."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NoReturn

from rabbitry.exceptions import ChannelTimeoutError, GetTimeoutError
from rabbitry.object_ref import ObjectRef

if TYPE_CHECKING:
    from rabbitry.dag.compiled_dag_node import CompiledDAG


class _Result:
    """One result of one execution; it can be had once."""

    def __init__(self, dag: CompiledDAG, execution_index: int, ref: ObjectRef[Any], channel_index: int) -> None:
        self._dag = dag
        self._execution_index = execution_index
        self._channel_index = channel_index
        self._ref: ObjectRef[Any] | None = ref

    def _take(self, how: str) -> ObjectRef[Any]:
        ref = self._ref
        if ref is None:
            raise ValueError(f"{how} once on a {type(self).__name__}, and it was already called.")
        self._dag._before_get(self._execution_index)
        self._ref = None
        return ref

    def __del__(self) -> None:
        dag = self.__dict__.get("_dag")
        if dag is not None:
            dag._let_go(self._execution_index, self._channel_index)

    def __copy__(self) -> NoReturn:
        raise ValueError(f"{type(self).__name__} cannot be copied.")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise ValueError(f"{type(self).__name__} cannot be deep copied.")

    def __reduce__(self) -> NoReturn:
        raise ValueError(f"{type(self).__name__} cannot be pickled.")

    def __str__(self) -> str:
        return (
            f"{type(self).__name__}({self._dag.get_id()}, execution_index={self._execution_index}, "
            f"channel_index={self._channel_index})"
        )


class CompiledDAGRef(_Result):
    """One result of `CompiledDAG.execute`, for `get`: once, and neither for `wait` nor as an argument."""

    def get(self, timeout: float | None = None) -> Any:
        """Return the value, or raise the error of the call that failed.

        Args:
            timeout: seconds; None for the default (`DAGContext.get_timeout`), -1 for ever.

        Raises:
            ValueError: it was asked for before.
            ChannelTimeoutError: it is not there within `timeout`.
        """
        from rabbitry import calls
        from rabbitry.dag.context import DAGContext

        if timeout is None:
            timeout = DAGContext.get_current().get_timeout
        ref = self._take("ray.get() can only be called")
        try:
            value = calls.get(ref, timeout=timeout)
        except GetTimeoutError as error:
            raise ChannelTimeoutError(
                f"No result within {timeout} s. If the execution is expected to take longer, give get() a timeout or "
                "set RAY_CGRAPH_get_timeout. Otherwise it may hang."
            ) from error
        finally:
            self._dag._let_go(self._execution_index, self._channel_index)
        return value


class CompiledDAGFuture(_Result):
    """One result of `CompiledDAG.execute_async`: to be awaited, once."""

    def __await__(self) -> Generator[Any, None, Any]:
        ref = self._take("await can only be called")
        try:
            return (yield from ref.__await__())
        finally:
            self._dag._let_go(self._execution_index, self._channel_index)

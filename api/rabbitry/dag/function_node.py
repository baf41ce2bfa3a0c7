"""The call of a task, bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rabbitry.dag.dag_node import DAGNode
from rabbitry.dag.format_utils import get_dag_node_str
from rabbitry.decorator import remote
from rabbitry.remote_function import RemoteFunction


class FunctionNode(DAGNode):
    """`f.bind(...)`.

    Args:
        func_body: the remote function, or a plain one.
        func_args: arguments.
        func_kwargs: keyword arguments.
        func_options: options for this call.
        other_args_to_resolve: see `DAGNode`.
    """

    def __init__(
        self,
        func_body: Any,
        func_args: Sequence[Any],
        func_kwargs: dict[str, Any],
        func_options: dict[str, Any],
        other_args_to_resolve: dict[str, Any] | None = None,
    ) -> None:
        function: RemoteFunction = func_body if isinstance(func_body, RemoteFunction) else remote(func_body)
        self._remote_function = function
        super().__init__(func_args, func_kwargs, func_options, other_args_to_resolve)

    @property
    def _body(self) -> Any:
        return self._remote_function._function

    def get_options(self) -> dict[str, Any]:
        """Return the options: those of the function, and of this call."""
        return {**self._remote_function._default_options, **self._bound_options}

    def _execute_impl(self, *args: Any, **kwargs: Any) -> Any:
        return self._remote_function.remote(*self._bound_args, **self._bound_kwargs)

    def _copy(
        self, new_args: Any, new_kwargs: dict[str, Any], new_options: dict[str, Any], new_other_args: dict[str, Any]
    ) -> DAGNode:
        return super()._copy(new_args, new_kwargs, self._bound_options, new_other_args)

    def __str__(self) -> str:
        return get_dag_node_str(self, str(self._body))

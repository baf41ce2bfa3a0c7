"""The end of a graph with several results."""

from __future__ import annotations

from typing import Any

from rabbitry.dag.dag_node import DAGNode
from rabbitry.dag.format_utils import get_dag_node_str


class MultiOutputNode(DAGNode):
    """`execute` returns the refs of several nodes, in a list.

    Args:
        args: a list of nodes, or a tuple.
        other_args_to_resolve: see `DAGNode`.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, args: Any, other_args_to_resolve: dict[str, Any] | None = None) -> None:
        if not isinstance(args, (list, tuple)):
            raise ValueError(f"Invalid input type for `args`, {type(args)}.")
        super().__init__(list(args), {}, {}, other_args_to_resolve)

    def _execute_impl(self, *args: Any, **kwargs: Any) -> Any:
        return self._bound_args

    def __str__(self) -> str:
        return get_dag_node_str(self, "__MultiOutputNode__")

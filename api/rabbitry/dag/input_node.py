"""What a graph is executed with."""

from __future__ import annotations

from typing import Any

from rabbitry.dag.dag_node import DAGNode
from rabbitry.dag.format_utils import get_dag_node_str

_IN_CONTEXT_MANAGER = "__in_context_manager__"


class InputNode(DAGNode):
    """Stands for what `execute` is called with: `with InputNode() as x: graph = f.bind(x, x[0], x.name)`.

    `x` itself is the one argument of `execute` (or all of them, as `DAGInputData`); `x[0]`, `x["name"]` and `x.name`
    are one of several arguments, or an item or attribute of the only one.

    Args:
        input_type: what is expected, for those who ask (`get_result_type`): a type, or types by key.

    Raises:
        ValueError: other arguments.
    """

    def __init__(
        self,
        *args: Any,
        input_type: Any = None,
        _other_args_to_resolve: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if args or kwargs:
            raise ValueError("InputNode should not take any args or kwargs.")
        self.input_attribute_nodes: dict[Any, InputAttributeNode] = {}
        self.input_type = input_type
        super().__init__((), {}, {}, dict(_other_args_to_resolve or {}))

    def _execute_impl(self, *args: Any, **kwargs: Any) -> Any:
        assert self._in_context_manager(), (
            "An InputNode is made by a with statement, and there is one in a DAG: 'with InputNode() as x: ...'."
        )
        return args[0] if len(args) == 1 and not kwargs else DAGInputData(*args, **kwargs)

    def _in_context_manager(self) -> bool:
        return bool(self._bound_other_args_to_resolve.get(_IN_CONTEXT_MANAGER, False))

    def set_context(self, key: str, val: Any) -> None:
        """Keep something with the node."""
        self._bound_other_args_to_resolve[key] = val

    def get_result_type(self) -> str | None:
        """Return the name of the type that is expected; None if nothing was said."""
        return self.input_type.__name__ if isinstance(self.input_type, type) else None

    def _part(self, key: Any, accessor: str) -> InputAttributeNode:
        if key not in self.input_attribute_nodes:
            self.input_attribute_nodes[key] = InputAttributeNode(self, key, accessor)
        return self.input_attribute_nodes[key]

    def __getattr__(self, name: str) -> InputAttributeNode:
        if name.startswith("__") or "input_attribute_nodes" not in self.__dict__:
            raise AttributeError(name)
        return self._part(name, "__getattr__")

    def __getitem__(self, key: int | str) -> InputAttributeNode:
        assert isinstance(key, (str, int)), (
            "Please only use int index or str as first-level key to access fields of dag input."
        )
        return self._part(key, "__getitem__")

    def __enter__(self) -> InputNode:
        self.set_context(_IN_CONTEXT_MANAGER, True)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __str__(self) -> str:
        return get_dag_node_str(self, "__InputNode__")


class InputAttributeNode(DAGNode):
    """A part of what a graph is executed with: `x[0]`, `x["name"]`, `x.name`.

    Args:
        dag_input_node: what it is a part of.
        key: which part.
        accessor_method: "__getitem__" or "__getattr__".
    """

    def __init__(self, dag_input_node: InputNode, key: int | str, accessor_method: str) -> None:
        others = {"dag_input_node": dag_input_node, "key": key, "accessor_method": accessor_method}
        super().__init__((), {}, {}, others)

    def _execute_impl(self, *args: Any, **kwargs: Any) -> Any:
        return self._of(self._bound_other_args_to_resolve["dag_input_node"])

    def _of(self, given: Any) -> Any:
        """Return the part of what was given."""
        if self._bound_other_args_to_resolve["accessor_method"] == "__getattr__" and not isinstance(
            given, DAGInputData
        ):
            return getattr(given, str(self.key))
        return given[self.key]

    @property
    def key(self) -> int | str:
        """Which part it is."""
        key: int | str = self._bound_other_args_to_resolve["key"]
        return key

    def get_result_type(self) -> str | None:
        """Return the name of the type that the `InputNode` expects here; None if nothing was said."""
        types = self._bound_other_args_to_resolve["dag_input_node"].input_type
        found = types.get(self.key) if isinstance(types, dict) else None
        return found.__name__ if isinstance(found, type) else None

    def __str__(self) -> str:
        return get_dag_node_str(self, f'["{self.key}"]')


class DAGInputData:
    """Several arguments of `execute`: by number those without, by name those with a name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._args = list(args)
        self._kwargs = kwargs

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, int):
            return self._args[key]
        if isinstance(key, str):
            return self._kwargs[key]
        raise ValueError("Please only use int index or str as first-level key to access fields of dag input.")

"""The creation of an actor, and the call of an actor's method, bound."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from rabbitry.actor import ActorClass, ActorHandle, ActorMethod
from rabbitry.dag.constants import (
    BIND_INDEX_KEY,
    IS_CLASS_METHOD_OUTPUT_KEY,
    PARENT_CLASS_NODE_KEY,
    PREV_CLASS_METHOD_CALL_KEY,
)
from rabbitry.dag.dag_node import DAGNode
from rabbitry.dag.format_utils import get_dag_node_str
from rabbitry.dag.input_node import InputNode
from rabbitry.decorator import remote

_binding = itertools.count()


class ClassNode(DAGNode):
    """`Class.bind(...)`: each `execute` of a graph creates the actor anew. Its methods are bound by `node.method.bind`.

    Args:
        cls: the actor class, or a plain one.
        cls_args: arguments of the constructor.
        cls_kwargs: keyword arguments of it.
        cls_options: options for this actor.
        other_args_to_resolve: see `DAGNode`.

    Raises:
        ValueError: the arguments depend on an `InputNode`.
    """

    def __init__(
        self,
        cls: Any,
        cls_args: Sequence[Any],
        cls_kwargs: dict[str, Any],
        cls_options: dict[str, Any],
        other_args_to_resolve: dict[str, Any] | None = None,
    ) -> None:
        self._actor_class: ActorClass = cls if isinstance(cls, ActorClass) else remote(cls)
        self._last_call: ClassMethodNode | None = None
        super().__init__(cls_args, cls_kwargs, cls_options, other_args_to_resolve)
        if any(isinstance(node, InputNode) for node in self._get_all_child_nodes()):
            raise ValueError(
                "InputNode stands for what a DAG is executed with, and cannot be an argument of a constructor: that is "
                "not known when the class is bound."
            )

    @property
    def _body(self) -> type:
        return self._actor_class._rabbitry_cls

    def get_options(self) -> dict[str, Any]:
        """Return the options: those of the class, and of this actor."""
        return {**self._actor_class._default_options, **self._bound_options}

    def _execute_impl(self, *args: Any, **kwargs: Any) -> ActorHandle:
        made = self._actor_class._remote(tuple(self._bound_args), dict(self._bound_kwargs), **self._bound_options)
        handle: ActorHandle = made
        return handle

    def _copy(
        self, new_args: Any, new_kwargs: dict[str, Any], new_options: dict[str, Any], new_other_args: dict[str, Any]
    ) -> DAGNode:
        return super()._copy(new_args, new_kwargs, self._bound_options, new_other_args)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_actor_class" not in self.__dict__:
            raise AttributeError(name)
        if name in ("bind", "remote") and not hasattr(self._body, name):
            return super().__getattr__(name)
        getattr(self._body, name)
        return _UnboundClassMethodNode(self, name, {})

    def __str__(self) -> str:
        return get_dag_node_str(self, str(self._body))


class _UnboundClassMethodNode:
    """A method of an actor to be."""

    def __init__(self, actor: ClassNode, method_name: str, options: dict[str, Any]) -> None:
        self._actor = actor
        self._method_name = method_name
        self._options = options

    def bind(self, *args: Any, **kwargs: Any) -> ClassMethodNode:
        """Note a call."""
        others = {PARENT_CLASS_NODE_KEY: self._actor, PREV_CLASS_METHOD_CALL_KEY: self._actor._last_call}
        node = ClassMethodNode(self._method_name, args, kwargs, self._options, others)
        self._actor._last_call = node
        return node

    def options(self, **options: Any) -> _UnboundClassMethodNode:
        """Return the method with options for the call."""
        return _UnboundClassMethodNode(self._actor, self._method_name, {**self._options, **options})

    def __getattr__(self, name: str) -> Any:
        if name == "remote":
            raise AttributeError(
                ".remote() cannot be used on ClassMethodNodes. Use .bind() instead to express an symbolic actor call."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class ClassMethodNode(DAGNode):
    """`node.method.bind(...)`, `handle.method.bind(...)`, or one of several results of these.

    Args:
        method_name: of the method.
        method_args: arguments; for one of several results: the call's node, and the result's number.
        method_kwargs: keyword arguments.
        method_options: options for this call.
        other_args_to_resolve: what `rabbitry.dag.constants` names.
    """

    def __init__(
        self,
        method_name: str,
        method_args: Sequence[Any],
        method_kwargs: dict[str, Any],
        method_options: dict[str, Any],
        other_args_to_resolve: dict[str, Any],
    ) -> None:
        self._method_name = method_name
        self._method: ActorMethod | None = None
        super().__init__(method_args, method_kwargs, method_options, other_args_to_resolve)

    @property
    def _parent_class_node(self) -> Any:
        return self._bound_other_args_to_resolve.get(PARENT_CLASS_NODE_KEY)

    def _execute_impl(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_class_method_output:
            return self._bound_args[0][self._bound_args[1]]
        return self._actor_method().remote(*self._bound_args, **self._bound_kwargs)

    def _actor_method(self) -> ActorMethod:
        method = self._method or getattr(self._parent_class_node, self._method_name)
        return method.options(**self._bound_options) if self._bound_options else method

    def get_method_name(self) -> str:
        """Return the name of the method."""
        return self._method_name

    def _get_actor_handle(self) -> ActorHandle | None:
        actor = self._parent_class_node
        return actor if isinstance(actor, ActorHandle) else None

    def _get_bind_index(self) -> int:
        return int(self._bound_other_args_to_resolve[BIND_INDEX_KEY])

    @property
    def num_returns(self) -> int:
        """How many results the call has, also of one of them."""
        if self.is_class_method_output:
            return int(self._bound_args[0].num_returns)
        if "num_returns" in self._bound_options:
            return int(self._bound_options["num_returns"])
        return _returns(self._method or getattr(self._parent_class_node, self._method_name))

    @property
    def is_class_method_call(self) -> bool:
        """True for a call."""
        return not self.is_class_method_output

    @property
    def is_class_method_output(self) -> bool:
        """True for one of several results of a call."""
        return bool(self._bound_other_args_to_resolve.get(IS_CLASS_METHOD_OUTPUT_KEY, False))

    @property
    def class_method_call(self) -> ClassMethodNode | None:
        """The call that this is a result of; None for a call."""
        return self._bound_args[0] if self.is_class_method_output else None

    @property
    def output_idx(self) -> int | None:
        """Which result of the call this is; None for a call."""
        return self._bound_args[1] if self.is_class_method_output else None

    def __str__(self) -> str:
        return get_dag_node_str(self, f"{self._method_name}()")

    __repr__ = __str__


def _returns(method: Any) -> int:
    if not isinstance(method, ActorMethod):
        return 1  # of an actor that is yet to be created
    bound = method._method
    returns = bound.facts.returns if bound.options.num_returns is None else bound.options.num_returns
    return returns if isinstance(returns, int) else 1


def bind_method(
    method: ActorMethod, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ClassMethodNode | tuple[ClassMethodNode, ...]:
    """Return the bound call of a living actor's method; of one with several results, a node for each of these."""
    others = {
        PARENT_CLASS_NODE_KEY: method._handle,
        PREV_CLASS_METHOD_CALL_KEY: None,
        BIND_INDEX_KEY: next(_binding),
        IS_CLASS_METHOD_OUTPUT_KEY: False,
    }
    name = method._method.name
    call = ClassMethodNode(name, args, kwargs, {}, others)
    call._method = method
    returns = _returns(method)
    if returns <= 1:
        return call
    result = {**others, IS_CLASS_METHOD_OUTPUT_KEY: True}
    return tuple(
        ClassMethodNode(f"return_idx_{index}", (call, index), {}, {}, dict(result)) for index in range(returns)
    )

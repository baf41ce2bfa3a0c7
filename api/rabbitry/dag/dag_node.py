"""A node of a lazy graph: what all kinds have in common."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rabbitry.dag.base import DAGNodeBase
from rabbitry.dag.py_obj_scanner import _PyObjScanner
from rabbitry.util.annotations import RayDeprecationWarning

if TYPE_CHECKING:
    from rabbitry.dag.compiled_dag_node import CompiledDAG

T = TypeVar("T")


def nodes_in(value: Any) -> list[DAGNode]:
    """Return the nodes inside of a value, each as often as it stands there; not what they hold themselves."""
    scanner: _PyObjScanner[Any, Any] = _PyObjScanner()
    return scanner.find_nodes(value)


class DAGNode(DAGNodeBase):
    """A call that is not made yet. Its arguments may be nodes, or hold nodes at any depth.

    Args:
        args: of the call.
        kwargs: of the call.
        options: of the call.
        other_args_to_resolve: what belongs to the node and may be, or hold, nodes, too.
    """

    def __init__(
        self,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        other_args_to_resolve: dict[str, Any] | None = None,
    ) -> None:
        self._bound_args: Sequence[Any] = args or ()
        self._bound_kwargs = kwargs or {}
        self._bound_options = options or {}
        self._bound_other_args_to_resolve = other_args_to_resolve or {}
        self._stable_uuid = uuid.uuid4().hex
        self._upstream_nodes = nodes_in([self._bound_args, self._bound_kwargs, self._bound_other_args_to_resolve])
        # Who takes this one as an argument: a compiled graph refuses calls whose results nobody takes.
        self._downstream_nodes: list[DAGNode] = []
        for node in self._upstream_nodes:
            node._downstream_nodes.append(self)
        self.cache_from_last_execute: dict[str, Any] = {}
        self.is_cgraph_output_node = False

    def get_args(self) -> Sequence[Any]:
        """Return the arguments."""
        return self._bound_args

    def get_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments."""
        return dict(self._bound_kwargs)

    def get_options(self) -> dict[str, Any]:
        """Return the options."""
        return dict(self._bound_options)

    def get_other_args_to_resolve(self) -> dict[str, Any]:
        """Return what else belongs to the node."""
        return dict(self._bound_other_args_to_resolve)

    def get_stable_uuid(self) -> str:
        """Return the id of the node; a copy, also by pickle, has the same."""
        return self._stable_uuid

    def execute(self, *args: Any, _ray_cache_refs: bool = False, **kwargs: Any) -> Any:
        """Make all calls of the graph, each once; return the ref of this one (an actor's handle, for a class).

        Args:
            args: what the graph's `InputNode` stands for.
            _ray_cache_refs: keep the refs of all nodes for `get_object_refs_from_last_execute()`.
            kwargs: more of the input.
        """
        warnings.warn(
            "DAGNode.execute() is deprecated in Ray: call remote() with refs, or compile the graph.",
            RayDeprecationWarning,
            stacklevel=2,
        )
        values: dict[str, Any] = {}
        result = self._applied(lambda node: node._execute_impl(*args, **kwargs), values, set())
        if _ray_cache_refs:
            self.cache_from_last_execute = values
        return result

    async def get_object_refs_from_last_execute(self) -> dict[str, Any]:
        """Return what each node came to in the last `execute(_ray_cache_refs=True)`, by the nodes' ids."""
        return dict(self.cache_from_last_execute)

    def clear_cache(self) -> None:
        """Forget what `get_object_refs_from_last_execute` returns."""
        self.cache_from_last_execute = {}

    def experimental_compile(
        self,
        _submit_timeout: float | None = None,
        _buffer_size_bytes: int | None = None,
        enable_asyncio: bool = False,
        _max_inflight_executions: int | None = None,
        _max_buffered_results: int | None = None,
        _overlap_gpu_communication: bool | None = None,
        _default_communicator: Any = "create",
    ) -> CompiledDAG:
        """Work the calls out once; the result's `execute` sends them to the actors' queues.

        All nodes are methods of living actors, and come from one `InputNode`.

        Args:
            _submit_timeout: for Ray's programs: sending never waits for the actors.
            _buffer_size_bytes: for Ray's programs: values are as large as they are.
            enable_asyncio: `execute_async` instead of `execute`.
            _max_inflight_executions: executions whose results were not asked for; more raise.
            _max_buffered_results: results not asked for, of executions before one that was.
            _overlap_gpu_communication: for Ray's programs.
            _default_communicator: for Ray's programs: values travel by the object store.

        Raises:
            ValueError, NotImplementedError: it is no graph that can be compiled; the message says why.
        """
        from rabbitry.dag.compiled_dag_node import CompiledDAG
        from rabbitry.dag.context import DAGContext

        if self.is_cgraph_output_node:
            raise ValueError(
                "It is not allowed to call `experimental_compile` on the same DAG object multiple times, torn down or "
                "not: use the compiled graph again, or bind a new one."
            )
        if _buffer_size_bytes is not None and (not isinstance(_buffer_size_bytes, int) or _buffer_size_bytes <= 0):
            raise ValueError(f"`buffer_size_bytes` must be a positive integer, found {_buffer_size_bytes}")
        if _default_communicator not in ("create", None):
            raise ValueError(
                f"default_communicator: values travel by the object store, so only 'create' or None may be given, "
                f"got {_default_communicator!r}"
            )
        context = DAGContext.get_current()
        self.is_cgraph_output_node = True
        return CompiledDAG(
            self,
            asynchronous=enable_asyncio,
            max_inflight=context.max_inflight_executions
            if _max_inflight_executions is None
            else _max_inflight_executions,
            max_buffered=context.max_buffered_results if _max_buffered_results is None else _max_buffered_results,
        )

    def with_tensor_transport(
        self,
        transport: Any = "auto",
        device: str = "default",
        _static_shape: bool = False,
        _direct_return: bool = False,
    ) -> DAGNode:
        """Return this node: tensors travel by the object store (Ray's "shm"), which "auto" comes to as well.

        Raises:
            ValueError: an unknown device, or a transport between GPUs, which rabbitry has not.
        """
        if device not in ("default", "cpu", "gpu", "cuda"):
            raise ValueError(f"Invalid device '{device}'. Valid options are: 'default', 'cpu', 'gpu', 'cuda'.")
        if transport not in ("auto", "shm"):
            raise ValueError(
                f"Invalid transport type: {transport}. Tensors travel by the object store: 'auto' or 'shm'. For others "
                "between GPUs, use rabbitry.util.collective inside the methods."
            )
        return self

    def apply_recursive(self, fn: Callable[[DAGNode], T]) -> T:
        """Return `fn` of this node, after that of all nodes below: `fn` gets copies whose nodes are replaced.

        Args:
            fn: called once with each node.
        """
        result: T = self._applied(fn, {}, set())
        return result

    def _applied(self, fn: Callable[[DAGNode], Any], values: dict[str, Any], inputs: set[str]) -> Any:
        from rabbitry.dag.input_node import InputNode

        if self._stable_uuid in values:
            return values[self._stable_uuid]
        resolved = self._apply_and_replace_all_child_nodes(lambda node: node._applied(fn, values, inputs))
        if isinstance(self, InputNode):
            inputs.add(self._stable_uuid)
            if len(inputs) > 1:
                raise AssertionError("Each DAG should only have one unique InputNode.")
        value = values[self._stable_uuid] = fn(resolved)
        return value

    def _apply_and_replace_all_child_nodes(self, fn: Callable[[DAGNode], Any]) -> DAGNode:
        """Return a copy with what `fn` returns in place of each node among what it holds."""
        scanner: _PyObjScanner[Any, Any] = _PyObjScanner()
        table: dict[DAGNode, Any] = {}
        for node in scanner.find_nodes([self._bound_args, self._bound_kwargs, self._bound_other_args_to_resolve]):
            if node not in table:
                table[node] = fn(node)
        args, kwargs, others = scanner.replace_nodes(table)
        return self._copy(args, kwargs, self.get_options(), others)

    def apply_functional(
        self, source_input_list: Any, predicate_fn: Callable[[Any], bool], apply_fn: Callable[[Any], Any]
    ) -> Any:
        """Return a copy of `source_input_list` with `apply_fn(node)` in place of the nodes that the predicate takes."""
        scanner: _PyObjScanner[Any, Any] = _PyObjScanner()
        table = {}
        for node in scanner.find_nodes(source_input_list):
            if node not in table:
                table[node] = apply_fn(node) if predicate_fn(node) else node
        return scanner.replace_nodes(table)

    def _get_toplevel_child_nodes(self) -> list[DAGNode]:
        held = (*self._bound_args, *self._bound_kwargs.values(), *self._bound_other_args_to_resolve.values())
        return list(dict.fromkeys(each for each in held if isinstance(each, DAGNode)))

    def _get_all_child_nodes(self) -> list[DAGNode]:
        held = [self._bound_args, self._bound_kwargs, self._bound_other_args_to_resolve]
        return list(dict.fromkeys(nodes_in(held)))

    def _execute_impl(self, *args: Any, **kwargs: Any) -> Any:
        """Make the call; the nodes among its arguments were replaced by what they came to."""
        raise NotImplementedError

    def _copy_impl(
        self, new_args: Any, new_kwargs: dict[str, Any], new_options: dict[str, Any], new_other_args: dict[str, Any]
    ) -> DAGNode:
        """Return a node of the same kind with other arguments. For subclasses whose constructor does more."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(
            self.__dict__,
            _bound_args=new_args,
            _bound_kwargs=new_kwargs,
            _bound_options=new_options,
            _bound_other_args_to_resolve=new_other_args,
        )
        return copy

    def _copy(
        self, new_args: Any, new_kwargs: dict[str, Any], new_options: dict[str, Any], new_other_args: dict[str, Any]
    ) -> DAGNode:
        copy = self._copy_impl(new_args, new_kwargs, new_options, new_other_args)
        copy._stable_uuid = self._stable_uuid
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __getattr__(self, attr: str) -> Any:
        if attr == "bind":
            raise AttributeError(f".bind() cannot be used again on {type(self)} ")
        if attr == "remote":
            raise AttributeError(
                f".remote() cannot be used on {type(self)}. To execute the task graph for this node, use .execute()."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {attr!r}", name=attr, obj=self)

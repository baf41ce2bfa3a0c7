"""A graph of actor methods, worked out once: `execute` is one loop that sends a call for each node.

There are no channels: a call is a message in its actor's queue, as any other, and takes the refs of the calls before it
as arguments. So it runs on both engines, over any number of nodes, survives what actors survive, and what else is sent
to the actors meanwhile takes its turn. The calls are sent in the order in which they were bound; that is an order in
which no call comes before what it depends on, so that no two actors can wait for each other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from rabbitry import actor, calls
from rabbitry.dag.class_node import ClassMethodNode
from rabbitry.dag.dag_node import DAGNode
from rabbitry.dag.drawing import Drawing
from rabbitry.dag.function_node import FunctionNode
from rabbitry.dag.input_node import DAGInputData, InputAttributeNode, InputNode
from rabbitry.dag.output_node import MultiOutputNode
from rabbitry.exceptions import ChannelError, CompiledGraphCapacityExceeded
from rabbitry.experimental.compiled_dag_ref import CompiledDAGFuture, CompiledDAGRef
from rabbitry.object_ref import ObjectRef

_LARGE = 100_000  # bytes; an input of this size that several calls take is stored once


class _Step(NamedTuple):
    """One call.

    Attributes:
        method: what is called.
        takes: makes each argument from (the input, the refs of the steps before).
        kwargs: constants.
        returns: how many results it has.
    """

    method: actor.ActorMethod
    takes: list[Callable[[Any, list[Any]], Any]]
    kwargs: dict[str, Any]


class CompiledDAG:
    """What `experimental_compile` returns. Not for several threads at once, as in Ray."""

    def __init__(self, output: DAGNode, *, asynchronous: bool, max_inflight: int, max_buffered: int) -> None:
        self._id = uuid.uuid4().hex
        self._asynchronous = asynchronous
        self._max_inflight = max_inflight
        self._max_buffered = max_buffered
        self._returns_list = isinstance(output, MultiOutputNode)
        self._outputs = list(output.get_args()) if self._returns_list else [output]
        nodes = _connected(output)
        _check(output, nodes)
        kept = [node for node in nodes if isinstance(node, ClassMethodNode) and node.is_class_method_call]
        kept.sort(key=ClassMethodNode._get_bind_index)
        self._nodes = nodes
        self._places = {node: place for place, node in enumerate(kept)}
        self._steps = [self._step(node) for node in kept]
        self._takes = [self._take(node) for node in self._outputs]
        self._actors = list(dict.fromkeys(node._get_actor_handle() for node in kept))
        keys = [node.key for node in nodes if isinstance(node, InputAttributeNode)]
        self._whole_input = not keys
        positions = [key for key in keys if isinstance(key, int)]
        self._positional = max(positions) + 1 if positions else 0 if keys else 1
        self._names = [key for key in keys if isinstance(key, str)]
        self._users_of_input = sum(isinstance(arg, InputNode) for node in kept for arg in node.get_args())
        # Executions are numbered. Those up to `_finished` are done as far as the limit is concerned: somebody has the
        # result, or asked for a later one, or dropped the ref. Gone from the dictionary when the results are taken.
        self._sent = self._finished = -1
        self._open: dict[int, set[int]] = {}
        self.is_teardown = False

    def _step(self, node: ClassMethodNode) -> _Step:
        return _Step(node._actor_method(), [self._take(arg) for arg in node.get_args()], dict(node.get_kwargs()))

    def _take(self, arg: Any) -> Callable[[Any, list[Any]], Any]:
        if isinstance(arg, InputNode):
            return lambda given, refs: given
        if isinstance(arg, InputAttributeNode):
            return lambda given, refs: arg._of(given)
        if isinstance(arg, ClassMethodNode):
            if arg.is_class_method_output:
                place, index = self._places[arg._bound_args[0]], arg._bound_args[1]
                return lambda given, refs: refs[place][index]
            place = self._places[arg]
            return lambda given, refs: refs[place]
        return lambda given, refs: arg

    def get_id(self) -> str:
        """Return the id of the compiled graph."""
        return self._id

    def execute(self, *args: Any, **kwargs: Any) -> CompiledDAGRef | list[CompiledDAGRef]:
        """Send the calls; return the ref of the result, or a list of them after a `MultiOutputNode`.

        Raises:
            ValueError: the arguments are not those that the graph takes, or it was compiled for asyncio.
            CompiledGraphCapacityExceeded: too many results were not asked for.
            ChannelError: the graph was torn down.
        """
        if self._asynchronous:
            raise ValueError("Use execute_async if enable_asyncio=True")
        index, refs = self._send(args, kwargs)
        made = [CompiledDAGRef(self, index, ref, number) for number, ref in enumerate(refs)]
        return made if self._returns_list else made[0]

    async def execute_async(self, *args: Any, **kwargs: Any) -> CompiledDAGFuture | list[CompiledDAGFuture]:
        """Send the calls; return what is to be awaited for the result, or a list of such.

        Raises:
            ValueError: as `execute`, or it was not compiled for asyncio.
            CompiledGraphCapacityExceeded: as `execute`.
            ChannelError: as `execute`.
        """
        if not self._asynchronous:
            raise ValueError("Use execute if enable_asyncio=False")
        index, refs = self._send(args, kwargs)
        made = [CompiledDAGFuture(self, index, ref, number) for number, ref in enumerate(refs)]
        return made if self._returns_list else made[0]

    def visualize(
        self, filename: str = "compiled_graph", format: str = "png", view: bool = False, channel_details: bool = False
    ) -> str:
        """Draw the graph.

        Args:
            filename: where to write the drawing, without the ending that `format` gives it.
            format: any that Graphviz writes, such as "png", "svg" and "pdf"; "dot" for its source, which needs no
                program; or "ascii", which is written nowhere and needs no package.
            view: show the file by the program that the system opens such files with.
            channel_details: say at each arrow what goes along it: a value, which is in the message of the call, or an
                ObjectRef.

        Returns:
            The source of the drawing in Graphviz's language; for "ascii", the picture.

        Raises:
            ValueError: `view` or `channel_details` with "ascii", or Graphviz knows no such format.
            ImportError: the package graphviz is not installed.
            graphviz.ExecutableNotFound: its program `dot` is not installed.
        """
        drawing = Drawing(self._nodes, self._outputs)
        if format == "ascii":
            for name, given in (("view", view), ("channel_details", channel_details)):
                if given:
                    raise ValueError(f"{name}=True is not for format='ascii': it is a picture in letters, and no file.")
            return drawing.text()
        graph = drawing.graph(labelled=channel_details)
        if format == "dot":
            graph.save(f"{filename}.dot")
        else:
            graph.render(filename, format=format, view=view, cleanup=True)
        source: str = graph.source
        return source

    def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, list[ObjectRef[Any]]]:
        if self.is_teardown:
            raise ChannelError("The compiled graph was torn down. Compile a new one.")
        if len(args) != self._positional and not (self._whole_input and kwargs):
            raise ValueError(
                "dag.execute() or dag.execute_async() must be "
                f"called with {self._positional} positional args, got {len(args)}"
            )
        for name in self._names:
            if name not in kwargs:
                raise ValueError(f"dag.execute() or dag.execute_async() must be called with kwarg `{name}`")
        inflight = self._sent - self._finished
        if inflight >= self._max_inflight:
            raise CompiledGraphCapacityExceeded(
                f"The compiled graph can't have more than {self._max_inflight} in-flight executions, and you currently "
                f"have {inflight} in-flight executions. Retrieve an output using get() before submitting more "
                "requests or increase `_max_inflight_executions` of `experimental_compile()`."
            )
        given: Any = args[0] if self._whole_input and len(args) == 1 and not kwargs else DAGInputData(*args, **kwargs)
        if self._users_of_input > 1 and _bytes_of(given) >= _LARGE:
            given = calls.put(given)
        refs: list[Any] = []
        for method, takes, constants in self._steps:
            refs.append(method.remote(*[take(given, refs) for take in takes], **constants))
        results = [take(given, refs) for take in self._takes]
        self._sent += 1
        self._open[self._sent] = set(range(len(results)))
        return self._sent, results

    def _before_get(self, index: int) -> None:
        """Somebody asks for a result: those before it count as buffered from now on."""
        if index <= self._finished:
            return
        buffered = sum(number < index for number in self._open)
        if buffered > self._max_buffered:
            raise CompiledGraphCapacityExceeded(
                f"The compiled graph can't have more than {self._max_buffered} buffered results, and you currently "
                f"have {buffered} buffered results. Get the results of earlier executions, or increase "
                "`_max_buffered_results`."
            )
        self._finished = index

    def _let_go(self, index: int, number: int) -> None:
        """A result was taken, or its ref dropped."""
        left = self._open.get(index)
        if left is None:
            return
        left.discard(number)
        if not left:
            del self._open[index]
        while self._finished < self._sent and self._finished + 1 not in self._open:
            self._finished += 1

    def teardown(self, kill_actors: bool = False) -> None:
        """End the use of the graph; may be called again. What was sent still runs, and its results can be had.

        Args:
            kill_actors: kill its actors as well; else they are as any others.
        """
        if self.is_teardown:
            return
        self.is_teardown = True
        if kill_actors:
            for each in self._actors:
                if each is not None:
                    actor.kill(each)


def _bytes_of(value: Any) -> int:
    if isinstance(value, (bytes, bytearray)):
        return len(value)
    size = getattr(value, "nbytes", 0)
    return size if isinstance(size, int) else 0


def _connected(output: DAGNode) -> list[DAGNode]:
    """Return all nodes that hang together with `output`."""
    found = {output: None}
    waiting = [output]
    while waiting:
        node = waiting.pop()
        # Methods share their actor's node and what is bound to it, which is no way that values go.
        for each in (*node._upstream_nodes, *node._downstream_nodes):
            if each not in found:
                found[each] = None
                waiting.append(each)
    return list(found)


def _check(output: DAGNode, nodes: list[DAGNode]) -> None:
    """Refuse what cannot be compiled.

    Raises:
        ValueError, NotImplementedError: this cannot.
    """
    inputs = [node for node in nodes if isinstance(node, InputNode)]
    for node in nodes:
        if node is not output and node.is_cgraph_output_node:
            raise ValueError(f"The DAG was compiled more than once: (1) {node}, (2) {output}")
        for arg in node.get_args():
            if not isinstance(arg, DAGNode) and (held := DAGNode((arg,), {}, {})._upstream_nodes):
                for each in held:
                    each._downstream_nodes.pop()
                raise ValueError(
                    f"Found {len(held)} DAGNodes from the arg {arg} in {node}. Please ensure that the argument is a "
                    "single DAGNode and that a DAGNode is not allowed to be placed inside any type of container."
                )
    if not inputs:
        raise ValueError(f"No InputNode found in the DAG of {output}: bind one of its calls to an InputNode.")
    if len(inputs) > 1:
        raise NotImplementedError("Compiled DAGs currently require exactly one InputNode")
    attributes = {node.key for node in nodes if isinstance(node, InputAttributeNode)}
    for node in nodes:
        if isinstance(node, FunctionNode):
            raise NotImplementedError("Compiled DAGs currently only support actor method nodes")
        if isinstance(node, MultiOutputNode):
            if node is not output:
                raise ValueError("A MultiOutputNode is the end of a DAG: compile it, not what it is an argument of.")
        elif isinstance(node, ClassMethodNode):
            _check_call(output, node, bool(attributes))
        elif not isinstance(node, (InputNode, InputAttributeNode)):
            if any(isinstance(each, ClassMethodNode) for each in node._downstream_nodes):
                raise ValueError(
                    "Compiled DAGs can only bind methods to an actor that is already created with Actor.remote()"
                )
            raise ValueError(f"Found unsupported node of type {type(node)}")
    used = {node.key for node in _below(output) if isinstance(node, InputAttributeNode)}
    if unused := attributes - used:
        raise ValueError(
            "Compiled Graph expects input to be accessed using all of attributes "
            f"{', '.join(map(str, attributes))}, but {', '.join(map(str, unused))} "
            f"{'is' if len(unused) == 1 else 'are'} unused. Ensure all input attributes are used and contribute to the "
            "computation of the Compiled Graph output."
        )


def _check_call(output: DAGNode, node: ClassMethodNode, by_attributes: bool) -> None:
    if any(isinstance(value, DAGNode) for value in node.get_kwargs().values()):
        raise ValueError("Compiled DAG currently does not support binding to other DAG nodes as kwargs")
    if node.is_class_method_call and node._get_actor_handle() is None:
        raise ValueError("Compiled DAGs can only bind methods to an actor that is already created with Actor.remote()")
    args = [arg for arg in node.get_args() if isinstance(arg, DAGNode)]
    if not args:
        raise ValueError(
            "Compiled DAGs require each task to take a ray.dag.InputNode or at least one other DAGNode as an input. "
            f"Invalid task node:\n{node}\nPlease bind the task to proper DAG nodes."
        )
    if by_attributes and any(isinstance(arg, InputNode) for arg in args):
        raise ValueError(
            "All tasks must either use InputNode() directly, or they must index to specific args or kwargs."
        )
    if node is not output and not node._downstream_nodes:
        raise ValueError(
            "Compiled DAG doesn't support leaf nodes, i.e., nodes that don't have downstream nodes and are not output "
            f"nodes. Please add the output of {node.get_method_name()!r} to the MultiOutputNode."
        )


def _below(output: DAGNode) -> list[DAGNode]:
    """Return the nodes that `output` depends on, itself among them."""
    found = {output: None}
    waiting = [output]
    while waiting:
        for each in waiting.pop()._upstream_nodes:
            if each not in found:
                found[each] = None
                waiting.append(each)
    return list(found)

"""Pictures of compiled graphs: the source of a Graphviz drawing, and one in letters for terminals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rabbitry.dag.class_node import ClassMethodNode
from rabbitry.dag.dag_node import DAGNode
from rabbitry.dag.input_node import InputAttributeNode, InputNode
from rabbitry.dag.output_node import MultiOutputNode

_ID_LETTERS = 6  # of an actor's id
_COLUMN = 30  # letters
_COLOURS = 9  # of Graphviz's scheme `pastel19`


class _Task(NamedTuple):
    """A node of the picture.

    Attributes:
        lines: what it says.
        short: the same in a word.
        actor: number of its actor in the graph; None if it is no call.
    """

    lines: tuple[str, ...]
    short: str
    actor: int | None = None


class Drawing:
    """A graph as it is drawn: tasks with numbers, the input first and the outputs last, and what goes between them."""

    def __init__(self, nodes: Iterable[DAGNode], outputs: Sequence[DAGNode]) -> None:
        """Lay out a graph.

        Args:
            nodes: all nodes, in any order.
            outputs: those whose values are the result, in their order.
        """
        inner = [node for node in nodes if not isinstance(node, MultiOutputNode)]
        depths = _depths(inner)
        inner.sort(key=lambda node: (depths[node], _order(node)))
        numbers = {node: number for number, node in enumerate(inner)}
        self._actors: dict[Any, int] = {}
        self._tasks = [self._task(node) for node in inner]
        self._edges: list[tuple[int, int, str]] = []
        for node in inner:
            for source in dict.fromkeys(node._upstream_nodes):
                carried = "value" if isinstance(source, InputNode | InputAttributeNode) else "ObjectRef"
                self._edges.append((numbers[source], numbers[node], carried))
        end = len(inner)
        self._tasks.append(_Task(("MultiOutputNode",), "MultiOutputNode"))
        self._edges += [(numbers[node], end, "ObjectRef") for node in dict.fromkeys(outputs)]
        rows = max(depths.values()) + 1
        self._rows = [[numbers[node] for node in inner if depths[node] == row] for row in range(rows)] + [[end]]

    def _task(self, node: DAGNode) -> _Task:
        if isinstance(node, InputAttributeNode):
            name = f"InputAttributeNode[{node.key}]"
            return _Task((name,), name)
        if not isinstance(node, ClassMethodNode):
            return _Task((type(node).__name__,), type(node).__name__)
        if node.is_class_method_output:
            return _Task((f"ClassMethodOutputNode[{node.output_idx}]",), f"Output[{node.output_idx}]")
        handle = node._get_actor_handle()
        assert handle is not None, "a compiled graph has calls of living actors alone"
        actor = handle._actor_id.hex()[:_ID_LETTERS]
        name = node.get_method_name()
        lines = (f"Actor: {handle._rabbitry_facts.short_name}", f"ID: {actor}...", f"Method: {name}")
        return _Task(lines, f"Actor_{actor}:{name}", self._actors.setdefault(handle._actor_id, len(self._actors)))

    def graph(self, *, labelled: bool) -> Any:
        """Return it as a `graphviz.Digraph`.

        Args:
            labelled: say at each arrow what goes along it.

        Raises:
            ImportError: the package graphviz is not installed.
        """
        try:
            import graphviz
        except ImportError:
            raise ImportError(
                "visualize() needs the package graphviz, and its program `dot`: pip install graphviz, and install "
                "Graphviz by the system's packages. visualize(format='ascii') needs neither."
            ) from None
        made = graphviz.Digraph("compiled_graph")
        for number, task in enumerate(self._tasks):
            looks = {"shape": "rectangle", "style": "filled", "fillcolor": "lightgrey"}
            if task.actor is not None:
                colour = str(task.actor % _COLOURS + 1)
                looks = {"shape": "oval", "style": "filled", "colorscheme": f"pastel1{_COLOURS}", "fillcolor": colour}
            made.node(str(number), "\n".join((f"Task {number}", *task.lines)), **looks)
        for source, target, carried in self._edges:
            made.edge(str(source), str(target), **({"label": carried} if labelled else {}))
        return made

    def text(self) -> str:
        """Return lists of its tasks and edges, and the graph, a row for all that may run at the same time."""
        tasks = [f'{number} [label="Task {number}  {" ".join(task.lines)}"]' for number, task in enumerate(self._tasks)]
        edges = [f"{source} ---> {target}" for source, target, _ in self._edges]
        return "\n".join(
            ["Nodes Information:", *tasks, "", "Edges Information:", *edges, "", "Graph Built:", *self._picture()]
        )

    def _picture(self) -> Iterable[str]:
        above: list[int] = []
        for row in self._rows:
            # Each is drawn below something that it takes: that is what a row is. Longer ways are in the list alone.
            yield from _arrows(
                [
                    (above.index(here), row.index(there))
                    for here, there, _ in self._edges
                    if here in above and there in row
                ]
            )
            yield "".join(f"{number}:{self._tasks[number].short}".ljust(_COLUMN) for number in row).rstrip()
            above = row


def _arrows(ways: Sequence[tuple[int, int]]) -> Iterable[str]:
    """Draw the ways from columns to columns, one line for those that are straight and one for each other."""
    straight = {source for source, target in ways if source == target}
    if straight:
        yield "".join(("|" if place in straight else "").ljust(_COLUMN) for place in range(max(straight) + 1)).rstrip()
    for source, target in ways:
        left, right = sorted((source, target))
        if left != right:
            run = "-" * (_COLUMN * (right - left) - 2)
            yield " " * (_COLUMN * left) + (f"|{run}>|" if source < target else f"|<{run}|")


def _depths(nodes: Sequence[DAGNode]) -> dict[DAGNode, int]:
    """Return how many steps each node is away from the input, by the longest way."""
    known: dict[DAGNode, int] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting[-1]
        missing = [source for source in node._upstream_nodes if source not in known]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        known[node] = 1 + max((known[source] for source in node._upstream_nodes), default=-1)
    return known


def _order(node: DAGNode) -> tuple[int, int]:
    """Return what nodes of one depth are sorted by: calls as they were bound, and results by their numbers."""
    if isinstance(node, ClassMethodNode):
        return node._get_bind_index(), node.output_idx or 0
    return 0, 0

"""Lazy graphs of tasks and actor methods, under Ray's names.

    with InputNode() as x:
        graph = double.bind(add.bind(x, 1))
    rabbitry.get(graph.execute(2))  # 6

`bind` instead of `remote` notes a call; `execute` submits all of them, the results of one as arguments of the next.
`experimental_compile` works the order of the calls out once, and sends them to the actors' queues at each `execute`.
"""

from __future__ import annotations

from rabbitry.dag.class_node import ClassMethodNode, ClassNode
from rabbitry.dag.constants import (
    BIND_INDEX_KEY,
    IS_CLASS_METHOD_OUTPUT_KEY,
    PARENT_CLASS_NODE_KEY,
    PREV_CLASS_METHOD_CALL_KEY,
)
from rabbitry.dag.context import DAGContext
from rabbitry.dag.dag_node import DAGNode
from rabbitry.dag.function_node import FunctionNode
from rabbitry.dag.input_node import DAGInputData, InputAttributeNode, InputNode
from rabbitry.dag.output_node import MultiOutputNode

__all__ = [
    "BIND_INDEX_KEY",
    "IS_CLASS_METHOD_OUTPUT_KEY",
    "PARENT_CLASS_NODE_KEY",
    "PREV_CLASS_METHOD_CALL_KEY",
    "ClassMethodNode",
    "ClassNode",
    "DAGContext",
    "DAGInputData",
    "DAGNode",
    "FunctionNode",
    "InputAttributeNode",
    "InputNode",
    "MultiOutputNode",
]

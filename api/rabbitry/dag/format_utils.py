"""How nodes are written."""

from __future__ import annotations

from typing import Any


def get_dag_node_str(dag_node: Any, body_line: str) -> str:
    """Return a node as text of several lines, with the nodes that are its arguments.

    Args:
        dag_node: the node.
        body_line: what it calls.
    """
    fields = [
        f"body={body_line}",
        f"args={_written(list(dag_node._bound_args))}",
        f"kwargs={_written(dag_node._bound_kwargs)}",
        f"options={_written(dag_node._bound_options)}",
        f"other_args_to_resolve={_written(dag_node._bound_other_args_to_resolve)}",
    ]
    lines = "\n".join(fields).replace("\n", "\n    ")
    return f"({type(dag_node).__name__}, {dag_node._stable_uuid})(\n    {lines}\n)"


def _written(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return _block("[", [_written(each) for each in value], "]")
    if isinstance(value, dict):
        return _block("{", [f"{key}: {_written(each)}" for key, each in value.items()], "}")
    return str(value)


def _block(begin: str, items: list[str], end: str) -> str:
    if not items:
        return begin + end
    lines = ",\n".join(items).replace("\n", "\n    ")
    return f"{begin}\n    {lines}\n{end}"

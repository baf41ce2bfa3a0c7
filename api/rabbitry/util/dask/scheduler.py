"""The scheduler: it sends all tasks of a graph at once, each with the refs of what it depends on.

Which runs when is left to the cluster, as with all tasks that wait for others. The order of sending is dask's own
(`dask.order`), which finishes one branch of a graph before it begins another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dask
from dask._task_spec import Alias, DataNode, Task, convert_legacy_graph
from dask.order import order

from rabbitry import calls
from rabbitry.decorator import remote
from rabbitry.object_ref import ObjectRef
from rabbitry.util.dask.callbacks import local_ray_callbacks, unpack_ray_callbacks

_SHUFFLE = "dataframe.shuffle.method"
_RESOURCES = (
    "dask's annotation 'resources' is for dask's own cluster. Give ray_remote_args, to compute() or dask.annotate(): "
    "`dask.annotate(ray_remote_args={'num_cpus': 2, 'resources': {'license': 1}})`."
)


def enable_dask_on_ray(shuffle: str | None = "tasks", use_shuffle_optimization: bool = True) -> Any:
    """Compute dask's collections here from now on, or in a `with` statement.

    Args:
        shuffle: dask's way to shuffle; "disk" is for a cluster of one host.
        use_shuffle_optimization: for Ray's programs: nothing is needed.
    """
    return dask.config.set({"scheduler": ray_dask_get, _SHUFFLE: shuffle})


def dataframe_optimize(dsk: Any, keys: Any, **_: Any) -> Any:
    """Return a graph as it is; for Ray's programs, which give this to dask (`dask.config.set(dataframe_optimize=...)`).

    Args:
        dsk: the graph.
        keys: of what is wanted of it.
    """
    return dsk


def disable_dask_on_ray() -> Any:
    """Leave the choice to dask again."""
    return dask.config.set({"scheduler": None, _SHUFFLE: None})


def ray_dask_persist(*args: Any, **kwargs: Any) -> Any:
    """As `dask.persist`, but the results stay in the store: the collections hold refs, for this scheduler alone."""
    return dask.persist(*args, scheduler=ray_dask_get, ray_persist=True, **kwargs)


def ray_dask_get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Compute the values of keys of a graph; dask calls this (`scheduler=ray_dask_get`).

    Args:
        dsk: the graph.
        keys: a key, or lists of keys in any depth.
        kwargs: `ray_callbacks`, a list of callbacks instead of those registered; `ray_remote_args`, options of all
            tasks; `ray_persist`, True for refs. Others are for dask's schedulers, and unused.

    Returns:
        Values in the shape of `keys`.

    Raises:
        ValueError: dask's `resources` are given.
    """
    annotations = dask.get_annotations()
    if "resources" in kwargs or "resources" in annotations:
        raise ValueError(_RESOURCES)
    options = {**annotations.get("ray_remote_args", {}), **kwargs.get("ray_remote_args", {})}
    if not isinstance(dsk, Mapping):
        dsk = dsk._optimized_dsk if hasattr(dsk, "_optimized_dsk") else dsk.__dask_graph__()
    options_of = _annotated(dsk)
    graph = convert_legacy_graph(dsk)
    with local_ray_callbacks(kwargs.get("ray_callbacks")) as active:
        hooks = unpack_ray_callbacks(active)
        values = _submit(graph, options, options_of, hooks)
        found = {key: values[key] for key in _flat(keys)}
        del values, graph  # what nothing waits for any more may go
        refs = list(dict.fromkeys(each for each in found.values() if isinstance(each, ObjectRef)))
        for hook in hooks.ray_postsubmit_all_cbs:
            hook(refs, dsk)
        if not kwargs.get("ray_persist"):
            known = dict(zip(refs, calls.get(refs), strict=True))
            found = {key: known[each] if isinstance(each, ObjectRef) else each for key, each in found.items()}
        result = _shaped(keys, found)
        for hook in hooks.ray_finish_cbs:
            hook(result)
    return result


def ray_dask_get_sync(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """As `ray_dask_get`, which sends from the calling thread in any case."""
    return ray_dask_get(dsk, keys, **kwargs)


def _submit(
    graph: Mapping[Any, Any], options: dict[str, Any], options_of: dict[Any, Any], hooks: Any
) -> dict[Any, Any]:
    """Send all tasks; return a ref, or a value, for each key."""
    places = order(graph)
    users: dict[Any, int] = {}
    for node in graph.values():
        for key in node.dependencies:
            users[key] = users.get(key, 0) + 1
    function = remote(_run)
    variants: dict[str, Any] = {}
    values: dict[Any, Any] = {}
    for key in _sorted(graph, places):
        node = graph[key]
        if isinstance(node, DataNode):
            value = node.value
            values[key] = value if users.get(key, 0) < 2 or isinstance(value, ObjectRef) else calls.put(value)
            continue
        if isinstance(node, Alias):
            values[key] = values[node.target]
            continue
        needs = {each: values[each] for each in node.dependencies}
        # All are called: they may be there for what they see.
        instead = [got for got in [hook(node, key, needs) for hook in hooks.ray_presubmit_cbs] if got is not None]
        if instead:
            values[key] = instead[0]
            continue
        own = {**options, **options_of.get(key, {})}
        chosen = variants.get(repr(own))
        if chosen is None:
            chosen = variants[repr(own)] = function.options(**own) if own else function
        inside = list(dict.fromkeys(_refs_inside(node)))
        sent = chosen.remote(
            node, key, [*needs, *inside], hooks.ray_pretask_cbs, hooks.ray_posttask_cbs, *needs.values(), *inside
        )
        values[key] = sent
        for hook in hooks.ray_postsubmit_cbs:
            hook(node, key, needs, sent)
    return values


def _sorted(graph: Mapping[Any, Any], places: dict[Any, Any]) -> list[Any]:
    """Return the keys in dask's order, each after what it depends on."""
    done: dict[Any, None] = {}
    for first in sorted(graph, key=places.__getitem__):
        waiting = [first]
        while waiting:
            key = waiting[-1]
            missing = [each for each in graph[key].dependencies if each not in done]
            if key in done or not missing:
                done.setdefault(waiting.pop(), None)
            else:
                waiting += missing
    return list(done)


def _run(node: Any, key: Any, names: list[Any], before: list[Any], after: list[Any], *values: Any) -> Any:
    """Run one task of a graph, where it was sent."""
    notes = [None if hook is None else hook(key, values) for hook in before]
    known = dict(zip(names, values, strict=True))
    if any(isinstance(name, ObjectRef) for name in names):
        node = _filled(node, known)
    result = node(known)
    for hook, note in zip(after, notes, strict=True):
        if hook is not None:
            hook(key, result, note)
    return result


def _refs_inside(part: Any) -> Iterator[ObjectRef[Any]]:
    """Yield the refs in a task: where dask fuses several into one, what is persisted is no dependency of its own."""
    if isinstance(part, ObjectRef):
        yield part
    elif isinstance(part, DataNode):
        if isinstance(part.value, ObjectRef):
            yield part.value
    elif isinstance(part, Task):
        yield from _refs_inside(part.args)
        yield from _refs_inside(part.kwargs)
    elif type(part) in (list, tuple):
        for each in part:
            yield from _refs_inside(each)
    elif type(part) is dict:
        for each in part.values():
            yield from _refs_inside(each)


def _filled(part: Any, known: Mapping[Any, Any]) -> Any:
    """Return a task with the values of the refs that `_refs_inside` found; it is this process's own, and changed."""
    if isinstance(part, ObjectRef):
        return known[part]
    if isinstance(part, DataNode):
        return DataNode(part.key, known[part.value]) if isinstance(part.value, ObjectRef) else part
    if isinstance(part, Task):
        part.args, part.kwargs = _filled(part.args, known), _filled(part.kwargs, known)
        return part
    if type(part) in (list, tuple):
        return type(part)(_filled(each, known) for each in part)
    if type(part) is dict:
        return {name: _filled(each, known) for name, each in part.items()}
    return part


def _annotated(dsk: Any) -> dict[Any, dict[str, Any]]:
    """Return the options that parts of the graph were annotated with, by key."""
    found: dict[Any, dict[str, Any]] = {}
    for layer in getattr(dsk, "layers", {}).values():
        annotations = getattr(layer, "annotations", None) or {}
        if "resources" in annotations:
            raise ValueError(_RESOURCES)
        given = annotations.get("ray_remote_args")
        if given:
            found.update((key, given) for key in layer)
    return found


def _shaped(keys: Any, values: Mapping[Any, Any]) -> Any:
    return tuple(_shaped(each, values) for each in keys) if isinstance(keys, list) else values[keys]


def _flat(keys: Any) -> Iterator[Any]:
    if isinstance(keys, list):
        for each in keys:
            yield from _flat(each)
    else:
        yield keys

"""What is called while a graph of dask is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from dask.callbacks import Callback

CBS = ("ray_presubmit", "ray_postsubmit", "ray_pretask", "ray_posttask", "ray_postsubmit_all", "ray_finish")
"""The hooks there are, as `RayDaskCallback` takes them."""


class RayCallbacks(NamedTuple):
    """The hooks of all callbacks, each a list.

    What stands before and after a task is in pairs: both lists have an entry of each callback that has one of the two,
    None for the other.
    """

    ray_presubmit_cbs: list[Any]
    ray_postsubmit_cbs: list[Any]
    ray_pretask_cbs: list[Any]
    ray_posttask_cbs: list[Any]
    ray_postsubmit_all_cbs: list[Any]
    ray_finish_cbs: list[Any]


class RayDaskCallback(Callback):  # type: ignore[misc]  # of a package that may not be there
    """Hooks, given as arguments or as methods of a subclass with an underscore before the name.

    | hook | called |
    |---|---|
    | `ray_presubmit(task, key, deps)` | before a task is sent; what it returns, unless None, is taken for its result |
    | `ray_postsubmit(task, key, deps, object_ref)` | after it was sent |
    | `ray_pretask(key, object_refs)` | where the task runs, before it |
    | `ray_posttask(key, result, pre_state)` | there, after it, with what `ray_pretask` returned |
    | `ray_postsubmit_all(object_refs, dsk)` | when all were sent |
    | `ray_finish(result)` | at the end |

    Use it with `with`, or `register()` it. Dask's own hooks are not called: there is no scheduler of dask's.
    """

    ray_active: ClassVar[list[RayDaskCallback]] = []

    def __init__(self, **hooks: Any) -> None:
        for name in CBS:
            hook = hooks.pop(name, None)
            if hook is not None:
                setattr(self, f"_{name}", hook)
        super().__init__(**hooks)

    def __enter__(self) -> RayDaskCallback:
        self.register()
        return self

    def __exit__(self, *_: object) -> None:
        self.unregister()

    def register(self) -> None:
        """Call the hooks for all graphs from now on."""
        RayDaskCallback.ray_active.append(self)

    def unregister(self) -> None:
        """Call them no longer."""
        RayDaskCallback.ray_active.remove(self)


class ProgressBarCallback(RayDaskCallback):
    """Shows how many of the results that were asked for are there."""

    def _ray_postsubmit_all(self, object_refs: list[Any], dsk: Any) -> None:
        from rabbitry.util.progress_bar import progress

        for _ in progress(object_refs):
            pass


@contextmanager
def local_ray_callbacks(callbacks: Any = None) -> Iterator[list[RayDaskCallback]]:
    """Give the callbacks that count here: those given, or else those that are registered."""
    yield list(callbacks) if callbacks else list(RayDaskCallback.ray_active)


def unpack_ray_callbacks(cbs: Any) -> RayCallbacks:
    """Return the hooks of callbacks, by kind."""
    found = {name: [getattr(each, f"_{name}", None) for each in cbs] for name in CBS}
    around = [pair for pair in zip(found["ray_pretask"], found["ray_posttask"], strict=True) if pair != (None, None)]
    found["ray_pretask"], found["ray_posttask"] = [before for before, _ in around], [after for _, after in around]
    for name in set(CBS) - {"ray_pretask", "ray_posttask"}:
        found[name] = [hook for hook in found[name] if hook is not None]
    return RayCallbacks(*(found[name] for name in CBS))

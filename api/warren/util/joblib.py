"""joblib on a cluster: after `register_warren()`, `joblib.parallel_backend("warren")` runs its jobs as tasks.

joblib is no dependency of warren: install it to use this module.
"""

from __future__ import annotations


def register_warren() -> None:
    """Make warren a backend of joblib, by the names "warren" and "ray".

    `joblib.parallel_backend("warren", remote_options={...})`, and `Parallel(backend="warren", ...)` likewise, take
    options of the tasks, as in `f.options(...)`.

    Raises:
        ImportError: joblib is not installed.

    Example:
        >>> register_warren()  # doctest: +SKIP
        >>> with joblib.parallel_backend("warren"):  # doctest: +SKIP
        ...     joblib.Parallel()(joblib.delayed(abs)(x) for x in [-1, 2])
        [1, 2]
    """
    try:
        import joblib
    except ModuleNotFoundError as error:
        if error.name != "joblib":
            raise
        raise ImportError("register_warren() needs joblib, which is not installed: pip install joblib") from error
    from warren.util.joblib_backend import WarrenBackend

    for name in ("warren", "ray"):
        joblib.register_parallel_backend(name, WarrenBackend)


register_ray = register_warren
"""Ray's name for `register_warren`."""

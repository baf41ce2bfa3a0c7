"""joblib on a cluster: after `register_rabbitry()`, `joblib.parallel_backend("rabbitry")` runs its jobs as tasks.

joblib is no dependency of rabbitry: install it to use this module.
"""

from __future__ import annotations


def register_rabbitry() -> None:
    """Make rabbitry a backend of joblib, by the names "rabbitry" and "ray".

    `joblib.parallel_backend("rabbitry", remote_options={...})`, and `Parallel(backend="rabbitry", ...)` likewise, take
    options of the tasks, as in `f.options(...)`.

    Raises:
        ImportError: joblib is not installed.

    Example:
        >>> register_rabbitry()  # doctest: +SKIP
        >>> with joblib.parallel_backend("rabbitry"):  # doctest: +SKIP
        ...     joblib.Parallel()(joblib.delayed(abs)(x) for x in [-1, 2])
        [1, 2]
    """
    try:
        import joblib
    except ModuleNotFoundError as error:
        if error.name != "joblib":
            raise
        raise ImportError("register_rabbitry() needs joblib, which is not installed: pip install joblib") from error
    from rabbitry.util.joblib_backend import RabbitryBackend

    for name in ("rabbitry", "ray"):
        joblib.register_parallel_backend(name, RabbitryBackend)


register_ray = register_rabbitry
"""Ray's name for `register_rabbitry`."""

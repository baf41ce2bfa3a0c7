"""What a fresh executor becomes: import path, working directory and variables of its job and its tasks' environment.

All of this a user has sent. It is read here, in the process that it is for: no nonsense may end a node.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from rabbitry_workers.environments.making import Setup
from rabbitry_workers.executor.environment import THREADS, expanded

_OF_AN_INTERPRETER: Final = re.compile(r"/(site|dist)-packages/?$|/lib(64)?/python3[^/]*(/|$)|/python3\d+\.zip$")
"""Entries of a path that hold what is installed, or the standard library."""

GPUS_WITHOUT_CUDA: Final = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Has torch look for GPUs in a way that lets forked processes use them."""

_entered = False


class Entry(NamedTuple):
    """What a process is to become, as far as that can be read without becoming it.

    Attributes:
        setup: of the environment.
        path: import path of the process.
        directory: where the process is to be, "" for where it is.
        logging: what its job says of logging, if anything.
        as_ray: its programs say `ray`.
    """

    setup: Setup
    path: list[str]
    directory: str
    logging: dict[str, Any] | None
    as_ray: bool


def read(config: dict[str, Any]) -> Entry:
    """Return what a process is to become; its template may do so for it.

    Raises:
        Exception: it makes no sense.
    """
    setup = _setup_of(config)
    process = json.loads(config["process"]) if config["process"] else {}
    path = [str(each) for each in process.get("sys_path", [])]
    if setup.command or setup.image:
        # What is installed for the environment comes before what the driver has installed, and behind its own modules.
        own = [each for each in path if not _OF_AN_INTERPRETER.search(each)]
        order = [*setup.path, *own, *sys.path, *path]
    else:
        order = [*setup.path, *path, *sys.path]
    directory = setup.cwd or process.get("cwd") or ""
    return Entry(setup, list(dict.fromkeys(order)), directory, process.get("logging"), config["as_ray"])


def enter(config: dict[str, Any], *, first: bool = False, entry: Entry | None = None) -> Setup:
    """Set up this process, unless the template that it was forked from has been already.

    Args:
        config: what the agent says of executors of a job and environment.
        first: this is such a template.
        entry: what `read` has made of it, if it was called.

    Returns:
        What its environment is.

    Raises:
        Exception: it cannot be set up like that.
    """
    global _entered
    if _entered:
        setup = entry.setup if entry is not None else _setup_of(config)
        os.environ.update(setup.marks)  # the template may be that of others too, which have other marks
        return setup
    entry = entry or read(config)
    setup = entry.setup
    if setup.variables:
        os.environ.update(expanded(setup.variables, os.environ))
    sys.path[:] = entry.path
    if setup.path:
        inherited = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*setup.path, *([inherited] if inherited else [])])  # for children
    if entry.directory and (setup.cwd or os.path.isdir(entry.directory)):
        os.chdir(entry.directory)
    if entry.as_ray:
        from rabbitry.as_ray import install

        install(children=False)
    if entry.logging:
        from rabbitry.logging_config import LoggingConfig

        LoggingConfig.from_dict(entry.logging)._apply()
    if first:
        _entered = True
        _import(setup.preload)
        _import_libraries(setup)
    return setup


def has_entered() -> bool:
    """True if this is the template of an environment, which is set up already, or forked from one."""
    return _entered


def _import(modules: Iterable[str]) -> None:
    """Import what an environment wants to be imported in its template.

    Raises:
        ImportError: one of them cannot be; says which, and why.
    """
    from importlib import import_module

    for module in modules:
        try:
            import_module(module)
        except Exception as error:
            raise ImportError(
                f"runtime_env['preload'] names {module!r}, which cannot be imported: {as_text(error)}"
            ) from error


def _import_libraries(setup: Setup) -> None:
    """Import what executors of a library's functions would import anyway, as far as it can be."""
    from importlib import import_module

    meanwhile = {
        name: value
        for name, value in ((THREADS, str(setup.threads)), (GPUS_WITHOUT_CUDA, "1"))
        if name not in os.environ  # else the user has said it
    }
    os.environ.update(meanwhile)
    for module in setup.libraries:
        try:
            import_module(module)
        except Exception as error:
            print(f"{module} is not imported before processes are forked: {as_text(error)}", flush=True)
    for name in meanwhile:
        os.environ.pop(name, None)


def _setup_of(config: dict[str, Any]) -> Setup:
    if config["setup"]:
        return Setup.unpack(config["setup"])
    variables = json.loads(config["env"]) if config["env"] else {}
    return Setup(env={"env_vars": dict(variables)} if variables else {}, holds=[], variables=dict(variables), path=[])


def run_hook(setup: Setup, load: Any) -> None:
    """Run what the environment says that a process runs first.

    Args:
        setup: of the environment.
        load: returns the function of a hash.

    Raises:
        Exception: what it raises, or it is not there.
    """
    hook = setup.hook
    if not hook:
        return
    if "." in hook:
        from importlib import import_module

        module, _, name = hook.rpartition(".")
        function = getattr(import_module(module), name)
    else:
        function = load(bytes.fromhex(hook))
    function()


def as_text(error: BaseException) -> str:
    """Return what an error says, as text that can be sent."""
    return f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace").decode()

"""Templates of environments: executors of one fork from a process that has its interpreter, and its modules imported.

An environment has a template of its own if it has an interpreter of its own, or names modules to preload; executors of
all others fork from the node's. One is started when its environment is ready or its first executor is asked for, and
ends when nobody uses the environment any more. One that dies is replaced, unless it dies before it has forked anything,
twice: then its environment cannot be.

An environment that only names libraries (`Setup.libraries`) can do without: its first executor is forked from the
node's template and imports them itself, and a template is started when a second one is asked for. If that is of no use,
all are forked from the node's. Those that differ in nothing that an import could see (`Setup.marks`) share one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rabbitry_broker.errors import RabbitryBrokerError
from rabbitry_broker.loop import Loop
from rabbitry_workers.channel import pack_message
from rabbitry_workers.environments import images, launch
from rabbitry_workers.environments.making import Setup
from rabbitry_workers.executor import template
from rabbitry_workers.node.dispatch.environments import Key, send_beside, setup_seconds
from rabbitry_workers.node.dispatch.forker import Forker, OnExited, OnForked
from rabbitry_workers.node.dispatch.pool import Tag

_OF_THE_LIBRARY: Final = re.compile(r"/python3[^/]*(/lib-dynload)?/?$|/python3\d+\.zip$")
"""Entries of a path that are the standard library: an interpreter has its own."""

log = logging.getLogger("rabbitry.node")


class Templates:
    """Forks executors, from the template of their environment. Loop thread only.

    Args:
        loop: the node's.
        node: the forker of the node's own template.
        on_forked: told of executors that are there.
        on_exited: told of the end of processes.
        not_forked: told of executors that will never be there.
        broken: told of environments whose processes cannot be started, and why.
        log_of: where what is said while an environment is set up goes.
        config_of: what executors of an environment are told, as far as it is the same for all.
        is_up: told of environments whose template can fork.
        mounts: directories of the node that executors in containers need to see.
    """

    def __init__(
        self,
        loop: Loop,
        node: Forker,
        on_forked: OnForked,
        on_exited: OnExited,
        not_forked: Callable[[Tag], None],
        broken: Callable[[Key, str], None],
        log_of: Callable[[Key], Path | None],
        config_of: Callable[[Key, Setup], dict[str, Any]],
        is_up: Callable[[Key], None],
        mounts: Sequence[str] = (),
    ) -> None:
        self._loop = loop
        self._node = node
        self._on_forked = on_forked
        self._on_exited = on_exited
        self._not_forked = not_forked
        self._broken = broken
        self._log_of = log_of
        self._config_of = config_of
        self._is_up = is_up
        self._mounts = mounts
        self._homes: dict[Key, Key] = {}  # of each environment: what its template is filed under
        self._forkers: dict[Key, Forker] = {}
        self._told: dict[Key, dict[str, Any]] = {}  # what the last executor of one that can do without was told
        self._useless_ones: set[Key] = set()  # homes of those: templates were of no use

    def fork(self, tag: Tag, config: dict[str, Any]) -> None:
        """Ask for an executor with this configuration."""
        forker = self._node
        if config["setup"]:
            setup = Setup.unpack(config["setup"])
            key = tag[0].key[1:]
            if setup.needs_template or (setup.has_template and self._has_use_of_one(key, setup, config)):
                home = self._home(key, setup)
                try:
                    forker = self._forkers.get(home) or self._start(key, setup, config)
                except OSError as error:
                    why = f"its processes cannot be started: {error}"
                    self._loop.add_callback(lambda: self._useless(home, why, [tag]))  # whoever asks counts it first
                    return
        forker.fork(tag, config)

    def _home(self, key: Key, setup: Setup) -> Key:
        """Return what the template of an environment is filed under."""
        home = self._homes.get(key)
        if home is None:
            home = key if setup.needs_template else (key[0], setup.without_marks().pack())
            self._homes[key] = home
        return home

    def _has_use_of_one(self, key: Key, setup: Setup, config: dict[str, Any]) -> bool:
        """True if the executor of an environment that can do without is to come from a template."""
        known = key in self._homes
        home = self._home(key, setup)
        self._told[key] = config
        return (known or self._users(home) > 1) and home not in self._useless_ones

    def _users(self, home: Key) -> int:
        return sum(each == home for each in self._homes.values())

    def warm(self, key: Key, setup: Setup) -> bool:
        """An environment is made: start its template; False if that cannot be now. `is_up` is told when it is there."""
        if (known := self._forkers.get(self._home(key, setup))) is not None:
            return not known.is_up
        try:
            self._start(key, setup, self._config_of(key, setup))
        except (RabbitryBrokerError, OSError) as error:
            log.warning("cannot start a template now: %s", error)
            return False
        return True

    def cool(self, key: Key) -> None:
        """Nobody uses an environment any more."""
        self._told.pop(key, None)
        home = self._homes.pop(key, None)
        if home is not None and not self._users(home):
            self._useless_ones.discard(home)
            self._end(home)

    def close(self) -> None:
        """End all templates of environments, with their executors."""
        for home in list(self._forkers):
            self._end(home)

    def _end(self, home: Key) -> None:
        forker = self._forkers.pop(home, None)
        for tag in forker.close() if forker is not None else ():
            self._not_forked(tag)

    def _start(self, key: Key, setup: Setup, config: dict[str, Any]) -> Forker:
        home = self._home(key, setup)
        if home != key:
            setup = setup.without_marks()
            config = {**config, "setup": setup.pack()}
        told = pack_message([template.SET_UP, {name: config[name] for name in ("process", "env", "setup", "as_ray")}])

        def start() -> tuple[subprocess.Popen[bytes], socket.socket]:
            return start_template(setup, told, self._log_of(key), self._mounts)

        child, ours = start()
        seconds = setup_seconds(setup.env)
        forker = self._forkers[home] = Forker(
            self._loop,
            (child.pid, ours),
            self._on_forked,
            self._on_exited,
            child=child,
            start=start,
            useless=lambda why, tags: self._useless(home, why, tags),
            on_up=lambda: self._is_up(key),
        )
        if seconds is not None:
            why = f"its first process was not ready within {seconds:g} s (config, setup_timeout_seconds)"
            self._loop.call_later(seconds, lambda: forker.give_up_unless_up(why))
        return forker

    def _useless(self, home: Key, why: str, tags: list[Any]) -> None:
        self._forkers.pop(home, None)
        if any(self._homes.get(key) == home for key in self._told):
            log.info("libraries are imported in each process of their environments: %s", why)
            self._useless_ones.add(home)
        for tag in tags:
            if (told := self._told.get(tag[0].key[1:])) is not None:
                self._node.fork(tag, {**told, "client_id": tag[2]})
            else:
                self._not_forked(tag)
        if home in self._homes:  # it is that of one environment alone, which cannot do without
            self._broken(home, why)


def start_template(
    setup: Setup, told: bytes, log_path: Path | None, mounts: Sequence[str]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the template of an environment; return it with our end of its control socket.

    Raises:
        OSError: its command cannot be started.
    """
    ours, theirs = socket.socketpair()
    path = [each for each in map(os.path.abspath, filter(None, sys.path)) if not _OF_THE_LIBRARY.search(each)]
    facts: dict[str, Any] = {"python": list(sys.version_info[:2]), "path": path}
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment.update({name: text for name, text in setup.variables.items() if "$" not in text})
    environment[launch.VARIABLE] = json.dumps(facts)
    command = [*(setup.command or [sys.executable]), str(Path(launch.__file__).absolute())]
    if setup.image:
        paths = [str(Path(launch.__file__).parents[1].absolute()), *path, *mounts]
        command = images.command(setup.image, setup.image_options, [launch.VARIABLE, *setup.variables], paths)
        environment["PYTHONPATH"] = os.pathsep.join(path)
    try:
        file = os.open(log_path or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            child = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=file,
                stderr=file,
                env=environment,
                cwd=setup.cwd or None,
                start_new_session=True,
            )
        finally:
            os.close(file)
        theirs.close()
        send_beside(ours, told)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return child, ours

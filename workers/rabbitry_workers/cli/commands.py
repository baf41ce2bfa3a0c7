"""The table of commands. A new one: a line here, and a module with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast


class CommandModule(Protocol):
    """What the module of a command has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Tell the parser of the command (or of its sub-commands) what it takes."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it; return the exit code. A RabbitryBrokerError or ValueError is shown in one line, with exit code 1."""


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        help: one line, for the list of commands.
        module: where it is, in this package.
    """

    help: str
    module: str

    def load(self) -> CommandModule:
        """Return its module."""
        return cast(CommandModule, import_module(f"rabbitry_workers.cli.{self.module}"))


COMMANDS: Final[dict[str, Command]] = {
    "start": Command("run a node of the cluster in the foreground", "start"),
    "status": Command("show nodes, queues, clients and messages put aside", "status"),
    "health": Command("exit with 0 if this host's node is alive (for health checks)", "health"),
    "stop": Command("have nodes finish what they run and leave", "stop"),
    "list": Command("list tasks, actors, nodes and other things, with their states", "listing"),
    "get": Command("show all that is known of one task, actor, node or other thing", "getting"),
    "summary": Command("count tasks, actors or objects by name and state", "summary"),
    "memory": Command("show which objects there are, how large, and who keeps them", "memory"),
    "timeline": Command("write what ran when and where as a trace for Perfetto", "timeline"),
    "stack": Command("show where executors are in their code now", "stack"),
    "debug": Command("debug a task that waits at a breakpoint", "debug"),
    "cancel": Command("cancel a task", "cancel"),
    "kill-actor": Command("end an actor", "kill_actor"),
    "drain": Command("have a node finish what it runs and leave", "drain"),
    "queues": Command("show what waits in queues, or throw it away", "queues"),
    "microbenchmark": Command("measure how fast small things are done", "microbenchmark"),
    "logs": Command("show what tasks and actors printed", "logs"),
    "autoscale": Command("have a command start and stop nodes, as many as the work needs", "autoscale"),
    "dashboard": Command("serve the REST API, jobs and pages of the cluster", "dashboard"),
    "job": Command("submit programs as jobs, follow, stop, list and delete them", "job"),
    "completion": Command("print what makes a shell complete these commands", "completion"),
}

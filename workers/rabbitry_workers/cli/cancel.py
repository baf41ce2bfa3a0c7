"""`rabbitry cancel`: cancel a task, whoever submitted it."""

from __future__ import annotations

import argparse
import sys

from rabbitry_workers.cli.acting import driver, id_of
from rabbitry_workers.cli.output import confirm
from rabbitry_workers.cli.parsing import add_addresses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("id", metavar="TASK", help="id of the task, in hexadecimal, as `rabbitry list tasks` shows it")
    parser.add_argument("--force", action="store_true", help="kill the process that runs it")
    parser.add_argument("--no-children", action="store_true", help="leave alone what it has submitted")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_addresses(parser)


def run(options: argparse.Namespace) -> int:
    """Ask for it; the task ends soon after."""
    from rabbitry_broker.ids import TASK_BYTES

    task_id = id_of(options.id, TASK_BYTES, "a task")
    if not confirm(f"Cancel task {options.id}?", yes=options.yes):
        print("nothing was done", file=sys.stderr)
        return 1
    with driver(options) as client:
        import rabbitry
        from rabbitry.object_ref import ObjectRef
        from rabbitry_broker.ids import FIRST_INDEX

        ref: ObjectRef[object] = ObjectRef(task_id + FIRST_INDEX)
        rabbitry.cancel(ref, force=options.force, recursive=not options.no_children)
        client.outbox.flush()
    print(f"task {options.id} was cancelled, unless it had ended")
    return 0

"""`rabbitry kill-actor`: end an actor, whoever created it."""

from __future__ import annotations

import argparse
import sys

from rabbitry_workers.cli.acting import driver, id_of
from rabbitry_workers.cli.output import confirm
from rabbitry_workers.cli.parsing import add_addresses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("id", nargs="?", metavar="ACTOR", help="its id, in hexadecimal, or else --name")
    parser.add_argument("--name", help="of the actor")
    parser.add_argument("--namespace", help="of the name (default: the only one that has it)")
    parser.add_argument("--restart", action="store_true", help="let it be restarted, if it may be")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_addresses(parser)


def run(options: argparse.Namespace) -> int:
    """Kill it."""
    if bool(options.id) == bool(options.name):
        raise ValueError("say which actor: its id, or --name")
    from rabbitry.core.failures import death_record
    from rabbitry_broker.ids import ACTOR_BYTES
    from rabbitry_broker.store.actors import ActorRecords

    with driver(options) as client:
        records = ActorRecords(client.store)
        if options.id:
            actor_id = id_of(options.id, ACTOR_BYTES, "an actor")
        else:
            actor_id = _named(records, options.name, options.namespace)
        if not confirm(f"Kill actor {options.name or options.id}?", yes=options.yes):
            print("nothing was done", file=sys.stderr)
            return 1
        cause = death_record("", actor_id, "The actor is dead because it was killed by `rabbitry kill-actor`.")
        state = records.kill(actor_id, no_restart=not options.restart, cause=cause)
    if state in ("", "DEAD"):
        print(f"rabbitry: actor {actor_id.hex()} is not alive", file=sys.stderr)
        return 1
    print(f"actor {actor_id.hex()} was killed")
    return 0


def _named(records: object, name: str, namespace: str | None) -> bytes:
    from rabbitry_broker.store.actors import ActorRecords

    assert isinstance(records, ActorRecords)
    if namespace is None:
        found = [space for space, each in records.names() if each == name]
        if len(found) != 1:
            spaces = f" It is in {', '.join(map(repr, sorted(found)))}: say which with --namespace." if found else ""
            raise ValueError(f"{len(found) or 'no'} living actors are called {name!r}.{spaces}")
        namespace = found[0]
    actor_id = records.by_name(namespace, name)
    if actor_id is None:
        raise ValueError(f"no living actor is called {name!r} in the namespace {namespace!r}")
    return actor_id

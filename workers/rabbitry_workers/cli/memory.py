"""`rabbitry memory`: which objects there are, how large they are, and who keeps them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rabbitry_workers.cli.output import print_data, print_table
from rabbitry_workers.cli.parsing import add_format
from rabbitry_workers.cli.seeing import add_seeing, state_of

UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
GROUPS = {"node": "ip", "process": "pid", "kind": "reference_type"}
SORTS = ("size", "pid", "kind")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("--group-by", choices=GROUPS, default="process", help="sums by node, process or kind")
    parser.add_argument("--sort-by", choices=SORTS, default="size", help="of the objects")
    parser.add_argument("--units", choices=UNITS, default="B", help="of sizes")
    parser.add_argument("-n", "--num-entries", type=int, default=100, metavar="N", help="objects at most (default 100)")
    parser.add_argument("--stats-only", action="store_true", help="only the sums")
    add_format(parser)
    add_seeing(parser)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    if options.num_entries < 0:
        raise ValueError(f"--num-entries {options.num_entries} must be 0 or more")
    with state_of(options) as state:
        objects, total = state.objects()
    unit = UNITS[options.units]
    keys = {
        "size": lambda row: (-(row["object_size"] or 0),),
        "pid": lambda row: (row["pid"] or 0,),
        "kind": lambda row: (str(row["reference_type"]),),
    }
    objects.sort(key=keys[options.sort_by])
    sums = summed(objects, GROUPS[options.group_by])
    if options.format != "table":
        shown = [] if options.stats_only else objects[: options.num_entries]
        print_data({"total": total, "groups": sums, "objects": shown}, options.format)
        return 0
    print_table(
        (options.group_by.upper(), "OBJECTS", f"SIZE ({options.units})"),
        [(str(each["group"]), str(each["objects"]), f"{each['bytes'] / unit:g}") for each in sums],
    )
    if not options.stats_only:
        print()
        print_table(
            ("OBJECT", f"SIZE ({options.units})", "KIND", "STATE", "PID", "IP", "CALL SITE"),
            [
                (
                    str(row["object_id"]),
                    f"{(row['object_size'] or 0) / unit:g}",
                    *(str(row.get(key) or "") for key in ("reference_type", "task_status", "pid", "ip", "call_site")),
                )
                for row in objects[: options.num_entries]
            ],
        )
    print(
        f"\n{total} objects" + (f", {options.num_entries} of them shown" if len(objects) > options.num_entries else "")
    )
    return 0


def summed(objects: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return the numbers and sizes of objects in groups, the largest first.

    >>> summed([{"pid": 1, "object_size": 5}, {"pid": 1, "object_size": 2}], "pid")
    [{'group': 1, 'objects': 2, 'bytes': 7}]
    """
    counts: Counter[Any] = Counter(row[key] for row in objects)
    sizes: Counter[Any] = Counter()
    for row in objects:
        sizes[row[key]] += max(0, row["object_size"] or 0)
    return [{"group": group, "objects": counts[group], "bytes": size} for group, size in sizes.most_common()]

"""What the Trace Event Format asks of a trace, as far as viewers (Perfetto, chrome://tracing) insist on it.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

Event = dict[str, Any]


def faults(events: list[Event]) -> list[str]:
    """Return what is wrong with the events of a trace."""
    wrong: list[str] = []
    slices: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    waits: dict[tuple[str, str], list[Event]] = defaultdict(list)
    arrows: dict[tuple[str, str, int], dict[str, list[Event]]] = defaultdict(lambda: defaultdict(list))
    named = {(each["name"], each["pid"], each["tid"]) for each in events if each["ph"] == "M"}
    for each in json.loads(json.dumps(events)):
        kind, place = each["ph"], (each["pid"], each["tid"])
        if not all(isinstance(number, int) for number in place):
            wrong.append(f"rows are numbers: {each}")
        if kind != "M" and (not isinstance(each["ts"], int) or each["ts"] < 0):
            wrong.append(f"times are microseconds since some beginning: {each}")
        if kind == "X":
            if each["dur"] <= 0:
                wrong.append(f"a slice lasts: {each}")
            slices[place].append((each["ts"], each["ts"] + each["dur"]))
        elif kind in ("b", "e"):
            waits[each["cat"], each["id"]].append(each)
        elif kind in ("s", "f"):
            arrows[each["cat"], each["name"], each["id"]][kind].append(each)
        elif kind != "M":
            wrong.append(f"no kind of this trace: {each}")
    for place, spans in slices.items():
        if ("thread_name", *place) not in named or ("process_name", place[0], 0) not in named:
            wrong.append(f"a row without a name: {place}")
        spans.sort()
        wrong += [f"slices overlap in {place}: {pair}" for pair in pairwise(spans) if pair[1][0] < pair[0][1]]
    for key, pair in waits.items():
        if [each["ph"] for each in pair] != ["b", "e"] or pair[0]["ts"] > pair[1]["ts"]:
            wrong.append(f"{key} does not begin once and end once after that: {pair}")
        if len({(each["name"], each["pid"]) for each in pair}) != 1:
            wrong.append(f"{key} ends as something else: {pair}")
    for key, ends in arrows.items():
        if len(ends["s"]) != 1 or len(ends["f"]) != 1:
            wrong.append(f"an arrow has one beginning and one end: {key}")
            continue
        begin, end = ends["s"][0], ends["f"][0]
        if begin["ts"] > end["ts"] or end.get("bp") != "e":
            wrong.append(f"an arrow leads back in time, or into the next slice: {begin} {end}")
        for each in (begin, end):
            if not any(since <= each["ts"] < until for since, until in slices[each["pid"], each["tid"]]):
                wrong.append(f"an arrow leads from or to no slice: {each}")
    return wrong

"""Placement groups: handles, the table, what runs inside, what fails and how, removal."""

import os
import pickle
import tempfile
import time
from pathlib import Path

import ray
from _report import TIMEOUT, attempt, get, show, start, wait_for
from ray.util.placement_group import (
    PlacementGroup,
    _valid_resource_shape,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
    validate_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Inside


def message(action):
    try:
        return repr(action())
    except Exception as error:
        return str(error)


def until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@ray.remote
def facts():
    context = ray.get_runtime_context()
    current = get_current_placement_group()
    return [
        context.get_assigned_resources(),
        ray.get_gpu_ids(),
        current and sorted(map(sorted, current.bundle_specs)),
        context.should_capture_child_tasks_in_placement_group,
        context.get_placement_group_id() == (current and current.id.hex()),
    ]


@ray.remote
def parent():
    inside = [
        facts.remote(),
        facts.options(scheduling_strategy=Inside(None)).remote(),
        facts.options(scheduling_strategy="DEFAULT").remote(),
        facts.options(scheduling_strategy="SPREAD").remote(),
    ]
    return [each[2] for each in ray.get(inside)]


@ray.remote
def too_large_child():
    return ray.get(facts.options(num_cpus=3).remote())


@ray.remote
def hold(path):
    Path(path).touch()
    time.sleep(1000)


@ray.remote
class Actor:
    def facts(self):
        context = ray.get_runtime_context()
        return [context.get_assigned_resources(), ray.get_gpu_ids(), context.get_placement_group_id() is not None]

    def pid(self):
        return os.getpid()

    def hold(self, path):
        Path(path).touch()
        time.sleep(1000)


start(num_cpus=4, num_gpus=2, resources={"x": 2}, namespace="groups")
group = placement_group([{"CPU": 1, "GPU": 1}, {"CPU": 2}], name="named")
show("ready", get(group.ready()) == group)
show("wait", group.wait(5))
show("specs", group.bundle_specs)
show("count", group.bundle_count)
show("pickled", pickle.loads(pickle.dumps(group)) == group and hash(pickle.loads(pickle.dumps(group))) == hash(group))
show("another is another", group == PlacementGroup.empty())
show("id", [type(group.id).__name__, len(group.id.binary())])
table = placement_group_table(group)
stats = table.pop("stats")
show("table", [table["name"], table["bundles"], table["strategy"], table["state"], sorted(table), sorted(stats)])
show("table's stats", [stats["scheduling_state"], stats["scheduling_attempt"]])
show("one node", len(set(table["bundles_to_node_id"].values())))
show("table of all", list(placement_group_table()) == [group.id.hex()])
show("reserved", until(lambda: ray.available_resources().get("CPU") == 1.0))
show("by name", get_placement_group("named") == group)
attempt("unknown name", lambda: get_placement_group("unknown"))
show("unknown name says", message(lambda: get_placement_group("unknown")))
attempt("empty name", lambda: get_placement_group(""))
attempt("name taken", lambda: placement_group([{"CPU": 1}], name="named"))
show("current in a driver", get_current_placement_group())

show("any bundle", get(facts.options(scheduling_strategy=Inside(group)).remote()))
show("with a GPU", get(facts.options(num_gpus=1, scheduling_strategy=Inside(group, 0)).remote())[0])
show("nothing asked for", get(facts.options(num_cpus=0, scheduling_strategy=Inside(group, 0)).remote()))
show("captures", get(facts.options(num_cpus=0, scheduling_strategy=Inside(group, 1, True)).remote())[3])
show("no group", get(facts.options(scheduling_strategy=Inside(None)).remote())[2])
show("empty group", get(facts.options(scheduling_strategy=Inside(PlacementGroup.empty())).remote())[2])
show("old option", get(facts.options(placement_group=group, placement_group_bundle_index=1).remote())[2])
show("children captured", get(parent.options(scheduling_strategy=Inside(group, 1, True)).remote()))
show("children not captured", get(parent.options(scheduling_strategy=Inside(group, 1, False)).remote()))
show("children by default", get(parent.options(scheduling_strategy=Inside(group, 1)).remote()))
show("children in a full bundle", get(parent.options(num_cpus=2, scheduling_strategy=Inside(group, 1, True)).remote()))
attempt("child too large", lambda: get(too_large_child.options(scheduling_strategy=Inside(group, 1, True)).remote()))

large = facts.options(num_cpus=3, scheduling_strategy=Inside(group))
attempt("too large", large.remote)
show("too large says", message(large.remote))
attempt("index too high", facts.options(scheduling_strategy=Inside(group, 2)).remote)
show("index too high says", message(facts.options(scheduling_strategy=Inside(group, 2)).remote))
attempt("index without a group", facts.options(scheduling_strategy=Inside(None, 1)).remote)
show("index without a group says", message(facts.options(scheduling_strategy=Inside(None, 1)).remote))
attempt("not a group", facts.options(scheduling_strategy=Inside("x")).remote)
attempt("both ways", lambda: facts.options(placement_group=group, scheduling_strategy=Inside(group)).remote())

special = placement_group([{"x": 1}])
get(special.ready())
show("default actor without a CPU", message(Actor.options(scheduling_strategy=Inside(special)).remote))
frugal = Actor.options(num_cpus=0, scheduling_strategy=Inside(special)).remote()
show("frugal actor", get(frugal.facts.remote()))
holds = Actor.options(num_cpus=0, resources={"x": 1}, scheduling_strategy=Inside(special)).remote()
show("actor with a resource", get(holds.facts.remote()))
show("default actor", get(Actor.options(scheduling_strategy=Inside(group)).remote().facts.remote()))

empty = PlacementGroup.empty()
show("empty", empty.is_empty)
attempt("empty's specs", lambda: empty.bundle_specs)
show("empty waits", empty.wait(0.1))
show("empty is ready", get(empty.ready()).is_empty)

for label, arguments in {
    "strategy": {"strategy": "TIGHT"},
    "lifetime": {"lifetime": "long"},
    "no list": {"bundles": {"CPU": 1}},
    "no bundles": {"bundles": []},
    "empty bundle": {"bundles": [{}]},
    "zeros": {"bundles": [{"CPU": 0}]},
    "text": {"bundles": [{"CPU": "1"}]},
    "target without STRICT_PACK": {"_soft_target_node_id": "ab" * 28},
    "selectors of another number": {"bundle_label_selector": []},
    "selector without text": {"bundle_label_selector": [{"zone": 1}]},
    "selector of nonsense": {"bundle_label_selector": [{"zone": "!!"}]},
    "both strategies": {"strategy": "PACK", "topology_strategy": {"rack": "STRICT_PACK"}},
    "topology that is spread": {"topology_strategy": {"rack": "SPREAD"}},
    "topology of several labels": {"topology_strategy": {"rack": "STRICT_PACK", "row": "STRICT_PACK"}},
    "topology of nonsense": {"topology_strategy": {"ray.io/node-id": "x"}},
}.items():
    attempt(f"refused: {label}", lambda arguments=arguments: placement_group(**{"bundles": [{"CPU": 1}], **arguments}))
    attempt(f"validated: {label}", lambda each=arguments: validate_placement_group(**{"bundles": [{"CPU": 1}], **each}))
attempt("in order", lambda: validate_placement_group([{"CPU": 1}], "PACK"))
show("shapes", [_valid_resource_shape(each, [{"CPU": 2}, {"x": 1}]) for each in ({}, {"CPU": 2}, {"CPU": 1, "x": 1})])
show("zero kept", placement_group([{"x": 0.5, "GPU": 0}]).bundle_specs)

with tempfile.TemporaryDirectory() as directory:
    here = Path(directory)
    actor = Actor.options(num_cpus=1, scheduling_strategy=Inside(group, 1)).remote()
    call = actor.hold.remote(str(here / "call"))
    once = hold.options(max_retries=0, scheduling_strategy=Inside(group, 1)).remote(str(here / "once"))
    again = hold.options(max_retries=3, scheduling_strategy=Inside(group, 0)).remote(str(here / "again"))
    for each in ("call", "once", "again"):
        wait_for(here / each)
    waiting = facts.options(num_cpus=2, scheduling_strategy=Inside(group, 1)).remote()
    placed = Actor.options(num_cpus=2, scheduling_strategy=Inside(group, 1)).remote().pid.remote()
    show("nothing of it is done", ray.wait([call, once, again, waiting, placed], num_returns=5, timeout=0.5)[0])
    show("removed", remove_placement_group(group))
    attempt("call of an actor inside", lambda: get(call))
    attempt("task that may run once", lambda: get(once))
    attempt("task that waits", lambda: get(waiting))
    attempt("actor that waits", lambda: get(placed))
    attempt("later call", lambda: get(actor.pid.remote()))
show("removed twice", remove_placement_group(group))
show("state", placement_group_table(group)["state"])
show("state says", placement_group_table(group)["stats"]["scheduling_state"])
attempt("ready of a removed one", lambda: get(group.ready()))
attempt("wait for a removed one", lambda: group.wait(1))
show("specs of a removed one", PlacementGroup(group.id).bundle_count)
attempt("name of a removed one", lambda: get_placement_group("named"))
late = facts.options(scheduling_strategy=Inside(group)).remote()
attempt(
    "task for a removed one",
    lambda: ray.get(late, timeout=2),
    differs="Ray has it wait for ever; here it fails as what waited before",
)

huge = placement_group([{"CPU": 100}])
show("huge waits", huge.wait(0.5))
show("huge says", until(lambda: placement_group_table(huge)["stats"]["scheduling_state"] == "INFEASIBLE"))
show("huge's state", placement_group_table(huge)["state"])
show("huge is nowhere", placement_group_table(huge)["bundles_to_node_id"])
ready = huge.ready()
remove_placement_group(huge)
attempt("who waited for it", lambda: get(ready))
attempt("remove None", lambda: remove_placement_group(None))
attempt("remove a number", lambda: remove_placement_group(5))
ray.shutdown()

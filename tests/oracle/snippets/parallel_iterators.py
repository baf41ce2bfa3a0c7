"""`ray.util.iter`: shards, what is applied to items, gathering, unions, what is refused."""

import ray
from _report import attempt, get, show, start
from ray.util import iter as iters
from ray.util.iter import LocalIterator, from_actors, from_items, from_iterators, from_range

start(num_cpus=30)
show("names", [repr(from_range(4)), repr(from_items([1, 2], repeat=True)), repr(from_iterators([[1], [2]]))])
show("name of local ones", repr(from_range(4).for_each(int).gather_sync().batch(2)))
show("range", [from_range(7, num_shards=3).take(10), list(from_range(5).gather_sync())])
show("items", [from_items([1, 2, 3, 4, 5], num_shards=2).take(4), from_items([], num_shards=2).take(3)])
show("repeat", from_range(2, num_shards=1, repeat=True).take(5))
show("functions", sorted(from_iterators([lambda: iter([1, 2]), lambda: iter([3])]).gather_async()))
numbers = from_range(8, num_shards=2)
show("for_each", list(numbers.for_each(lambda x: x * 2).gather_sync()))
show(
    "for_each in tasks",
    sorted(numbers.for_each(lambda x: x * 2, max_concurrency=2, resources={"num_cpus": 0.1}).gather_sync()),
)
show("filter", list(numbers.filter(lambda x: x % 3 == 0).gather_sync()))
show("batch", list(numbers.batch(3).gather_sync()))
show("flatten", list(numbers.batch(3).flatten().gather_sync()))
show("combine", list(numbers.combine(lambda x: [x, x][: x % 3]).gather_sync()))
show("transform", list(numbers.transform(lambda it: (x + 1 for x in it)).gather_sync()))
show("local_shuffle", list(from_range(8, num_shards=1).local_shuffle(4, seed=7).gather_sync()))
show(
    "repartition", [sorted(numbers.repartition(3).gather_sync()), [sorted(s) for s in numbers.repartition(3).shards()]]
)
show("repartition in batches", sorted(numbers.repartition(3, batch_ms=20).gather_async(batch_ms=20)))
show("across shards", list(from_items([1, 2, 3], num_shards=2).batch_across_shards()))
show("async", [sorted(numbers.gather_async()), sorted(numbers.gather_async(batch_ms=10, num_async=3))])
show("source actors", sorted(x for _, x in numbers.gather_async().zip_with_source_actor()))
show("union", [sorted(numbers.union(from_range(2)).gather_sync()), numbers.union(from_range(2)).num_shards()])
show("select", list(numbers.select_shards([1]).gather_sync()))
show("shards", [list(each) for each in numbers.shards()])
show("shard in batches", list(numbers.get_shard(1, batch_ms=10, num_async=2)))


def local():
    return from_range(4, num_shards=1).gather_sync()


show(
    "local",
    [list(local().for_each(str)), local().filter(bool).take(2), list(local().batch(3)), list(local().shuffle(3, 1))],
)
show("local union", list(local().union(from_items(["a", "b"], num_shards=1).gather_sync(), deterministic=True)))
show("local union of ready ones", sorted(local().union(local())))
show("weights", list(local().union(local(), round_robin_weights=[2, 1])))
show("star", sorted(local().union(local(), round_robin_weights=[2, "*"])))


first, second = local().duplicate(2)
both = []
for _ in range(12):
    both += [[0, x] for x in first.take(1) if isinstance(x, int)] + [
        [1, x] for x in second.take(1) if isinstance(x, int)
    ]
show("duplicate", sorted(both))
counted = local()


def count(x):
    LocalIterator.get_metrics().counters["seen"] += x
    return LocalIterator.get_metrics().counters["seen"]


show("metrics", list(counted.for_each(count)))


@ray.remote
def read(shard):
    return list(shard)


show("read by tasks", get([read.remote(shard) for shard in numbers.for_each(lambda x: -x).shards()]))


@ray.remote
class Worker(iters.ParallelIteratorWorker):
    def __init__(self, n):
        super().__init__(lambda: iter(range(n)), False)


show("of actors", sorted(from_actors([Worker.remote(2), Worker.remote(3)]).gather_sync()))


@ray.remote
def fail(x):
    return 1 // x


attempt("iterated", lambda: list(numbers))
attempt("union with a list", lambda: numbers.union([1]))
attempt("select after union", lambda: numbers.union(from_range(1)).select_shards([0]))
attempt("select nothing", lambda: numbers.select_shards([]))
attempt("select too much", lambda: numbers.select_shards([5]))
attempt("no such shard", lambda: numbers.get_shard(5))
attempt("no depth", lambda: numbers.gather_async(num_async=0))
attempt("a negative time", lambda: numbers.gather_async(batch_ms=-1))
attempt("one copy", lambda: local().duplicate(1))
attempt("a weight too few", lambda: local().union(local(), round_robin_weights=[1]))
attempt("local union with a list", lambda: local().union([1]))
attempt("an error", lambda: numbers.for_each(lambda x: 1 // x).take(2))
ray.shutdown()

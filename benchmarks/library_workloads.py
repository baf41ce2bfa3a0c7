"""What `benchmarks.libraries` measures, and the program that measures it: jobs of libraries that are written for Ray.

A workload is a generator of steps, a name and a function to time. It calls nothing that is not Ray's or a library's,
and runs unchanged on Ray and on rabbitry, where `rabbitry.as_ray` answers `import ray`. What it does between two steps
is not timed.

As a program of the interpreter under test, `python library_workloads.py SYSTEM WORKLOAD QUICK` prints a line: `RESULT`,
then for each step its times in seconds, each with the processor time of all processes, servers included.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.http_client import Clients
from benchmarks.workloads import SERVERS

CPUS = "RABBITRY_BENCHMARK_CPUS"
"""The environment variable that says how many CPUs the cluster has."""

GROUP = "RABBITRY_BENCHMARK_GROUP"
"""The environment variable that names the folder of the control group that all processes but servers are in."""

ADDRESS = "RABBITRY_BENCHMARK_ADDRESS"
"""The environment variable with the address of a cluster that runs already."""

PAUSE_SECONDS = 0.5
"""Before each step: what the one before has left to do goes in the background."""

LIMIT_SECONDS = 300

Step = tuple[str, Callable[[], Any], int]
"""Its name; what is timed; how many times."""

ROWS = 1_000_000
PARQUET_FILES = 8
PARQUET_ROWS = 1_600_000
"""In each file: 25 MB, of random numbers that do not compress."""


def tune(quick: bool) -> Iterator[Step]:
    """Eight trials under ASHA; once in a cluster that is fresh, then again."""
    from ray import tune  # type: ignore[import-not-found]
    from ray.tune.schedulers import ASHAScheduler  # type: ignore[import-not-found]

    def trial(config: dict[str, int]) -> None:
        for step in range(10):
            tune.report({"score": config["x"] * (step + 1)})

    def fit() -> None:
        with tempfile.TemporaryDirectory() as folder:
            tuner = tune.Tuner(
                trial,
                param_space={"x": tune.grid_search(list(range(1, 9)))},
                tune_config=tune.TuneConfig(
                    metric="score", mode="max", scheduler=ASHAScheduler(max_t=10, grace_period=1)
                ),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            )
            results = tuner.fit()
        assert len(results) == 8
        assert results.num_errors == 0
        assert results.get_best_result().metrics["score"] == 80

    yield "tune_first", fit, 1
    yield "tune", fit, 1 if quick else 2


def serve(quick: bool) -> Iterator[Step]:
    """Requests over HTTP in turn and from 32 clients at once, and calls of a handle."""
    from ray import serve  # type: ignore[import-not-found]

    @serve.deployment(max_ongoing_requests=100)
    class Hello:
        async def __call__(self, request: Any) -> str:
            return "hello"

        def named(self, name: str) -> str:
            return "hello " + name

    handle = serve.run(Hello.bind(), route_prefix="/")
    few, many = (100, 500) if quick else (300, 1500)

    def ask(clients: int, count: int) -> None:
        with Clients("127.0.0.1", 8000, clients) as asking:
            assert asking.get("/", count) == {b"hello"}

    def call() -> None:
        for number in range(few):
            assert handle.named.remote(str(number)).result(timeout_s=LIMIT_SECONDS) == f"hello {number}"

    def call_at_once() -> None:
        answers = [handle.named.remote(str(number)) for number in range(few)]
        assert [each.result(timeout_s=LIMIT_SECONDS) for each in answers][-1] == f"hello {few - 1}"

    ask(32, 500)
    call()
    yield "serve_http", lambda: ask(1, few), 3
    yield "serve_http_32", lambda: ask(32, many), 3
    yield "serve_handle", call, 3
    yield "serve_handle_at_once", call_at_once, 3
    serve.shutdown()


def data(quick: bool) -> Iterator[Step]:
    """A million rows, and parquet files."""
    import numpy
    import pandas
    import ray.data  # type: ignore[import-not-found]

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ROWS // 10 if quick else ROWS
    keyed = ray.data.range(rows).map_batches(lambda batch: {"id": batch["id"], "k": batch["id"] % 100})

    def map_batches() -> None:
        assert keyed.sum("id") == rows * (rows - 1) // 2

    yield "data_first", map_batches, 1

    def groupby() -> None:
        assert len(keyed.groupby("k").sum("id").take_all()) == 100

    def sort() -> None:
        assert keyed.sort("id", descending=True).take(1)[0]["id"] == rows - 1

    with tempfile.TemporaryDirectory() as folder:
        random = numpy.random.default_rng(0)
        length = PARQUET_ROWS // 10 if quick else PARQUET_ROWS
        for number in range(PARQUET_FILES):
            frame = pandas.DataFrame({"a": random.integers(0, 1000, length), "b": random.random(length)})
            frame.to_parquet(Path(folder, f"{number}.parquet"))

        def parquet() -> None:
            found = ray.data.read_parquet(folder).filter(expr="a > 500").sum("b")
            assert 0.4 < found / (length * PARQUET_FILES) / 0.5 < 0.6

        for step in (map_batches, groupby, sort, parquet):
            step()
            yield f"data_{step.__name__}", step, 1 if quick else 3


def train(quick: bool) -> Iterator[Step]:
    """Two workers of torch DDP over gloo, from the start to the end; once in a cluster that is fresh, then again."""
    import ray.train
    from ray.train import Checkpoint, RunConfig, ScalingConfig  # type: ignore[import-not-found]
    from ray.train.torch import TorchTrainer  # type: ignore[import-not-found]

    def loop(config: dict[str, Any]) -> None:
        import torch
        from ray.train.torch import prepare_model

        torch.set_num_threads(1)
        torch.manual_seed(0)
        model = prepare_model(torch.nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        rank = ray.train.get_context().get_world_rank()
        x = torch.randn(64, 4) + rank
        y = x.sum(1, keepdim=True)
        for epoch in range(5):
            loss = ((model(x) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with tempfile.TemporaryDirectory() as made:
                checkpoint = None
                if rank == 0 and epoch == 4:  # a result has the metrics of its last checkpoint
                    torch.save(model.state_dict(), Path(made, "model.pt"))
                    checkpoint = Checkpoint.from_directory(made)
                ray.train.report({"loss": loss.item()}, checkpoint=checkpoint)

    def fit() -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = TorchTrainer(
                loop,
                scaling_config=ScalingConfig(num_workers=2),
                run_config=RunConfig(storage_path=folder, name="bench"),
            )
            assert trainer.fit().metrics["loss"] > 0

    yield "train_first", fit, 1
    yield "train", fit, 1 if quick else 2


def rllib(quick: bool) -> Iterator[Step]:
    """Iterations of PPO on CartPole with two env runners."""
    from ray.rllib.algorithms.ppo import PPOConfig  # type: ignore[import-not-found]

    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2)
        .training(train_batch_size_per_learner=1000, num_epochs=2)
    )
    algorithm = config.build_algo()
    algorithm.train()
    yield "rllib_iteration", algorithm.train, 3 if quick else 5
    algorithm.stop()


def modin(quick: bool) -> Iterator[Step]:
    """A frame of a million rows."""
    import modin.config  # type: ignore[import-not-found]
    import modin.pandas  # type: ignore[import-not-found]
    import numpy
    from modin.utils import execute  # type: ignore[import-not-found]

    modin.config.NPartitions.put(4)
    random = numpy.random.default_rng(0)
    rows = ROWS // 10 if quick else ROWS
    frame = modin.pandas.DataFrame(
        {"key": random.integers(0, 100, rows), "a": random.integers(0, 1000, rows), "b": random.random(rows)}
    )
    other = modin.pandas.DataFrame({"key": numpy.arange(100), "weight": numpy.arange(100) * 2})
    operations: dict[str, Callable[[], Any]] = {
        "map": lambda: frame * 2,
        "sum": frame.sum,
        "groupby": lambda: frame.groupby("key").sum(),
        "counts": lambda: frame["key"].value_counts(),
        "sort": lambda: frame.sort_values("b"),
        "merge": lambda: frame.merge(other, on="key"),
        "filter": lambda: frame[frame["a"] > 500],
        "apply": lambda: frame.apply(lambda column: column.max()),
    }
    for name, operation in operations.items():

        def run(operation: Callable[[], Any] = operation) -> None:
            execute(operation())

        run()
        yield f"modin_{name}", run, 5


WORKLOADS: dict[str, Callable[[bool], Iterator[Step]]] = {
    each.__name__: each for each in (tune, serve, data, train, rllib, modin)
}


def processor_seconds() -> float | None:
    """Return the processor time that the system under test took so far, None if nobody counts."""
    folder = os.environ.get(GROUP)
    if not folder:
        return None
    figures = dict(line.split() for line in Path(folder, "cpu.stat").read_text().splitlines())
    ticks = 0
    if servers := os.environ.get(SERVERS):
        for pid in map(int, servers.split()):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return int(figures["usage_usec"]) / 1e6 + ticks / os.sysconf("SC_CLK_TCK")


def measure(system: str, workload: str, quick: bool) -> dict[str, list[tuple[float, float | None]]]:
    """Return of each step how long it took each time, and of processor time."""
    if system != "ray":
        from rabbitry.as_ray import install

        install()
    import ray

    options: dict[str, Any] = {"log_to_driver": False}
    if address := os.environ.get(ADDRESS):
        options["address"] = address
    else:
        options |= {"num_cpus": int(os.environ[CPUS]), "include_dashboard": False}
    ray.init(**options)
    found: dict[str, list[tuple[float, float | None]]] = {}
    for name, step, times in WORKLOADS[workload](quick):
        for _ in range(times):
            time.sleep(PAUSE_SECONDS)
            processor, began = processor_seconds(), time.perf_counter()
            step()
            seconds, after = time.perf_counter() - began, processor_seconds()
            took = None if processor is None or after is None else after - processor
            found.setdefault(name, []).append((seconds, took))
    ray.shutdown()
    return found


if __name__ == "__main__":
    print("RESULT " + json.dumps(measure(sys.argv[1], sys.argv[2], sys.argv[3] == "quick")))

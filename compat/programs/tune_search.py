"""Tune: trials that fail and try again, a class under PBT, Optuna's search, a driver that is killed and restored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.search.optuna import OptunaSearch

from compat.session import start

STEPS = 6


def steps(config: dict[str, Any]) -> None:
    """Count to STEPS from the checkpoint, with what the configuration says in between."""
    begin = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            begin = json.loads(Path(folder, "step.json").read_text())
    for step in range(begin, STEPS):
        if "failures" in config:
            marks = Path(config["failures"], f"{config['x']}-{step}")
            if step in (2, 4) and not marks.exists():
                marks.touch()
                raise ValueError("once")
        time.sleep(config.get("pause", 0))
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step.json").write_text(json.dumps(step + 1))
            score = config["x"] * (step + 1)
            tune.report({"score": score}, checkpoint=tune.Checkpoint.from_directory(folder))


class Climber(tune.Trainable):
    """Climbs by its rate; PBT is to prefer the largest."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin at the bottom."""
        self.height, self.rate = 0.0, config["rate"]

    def step(self) -> dict[str, Any]:
        """Climb."""
        self.height += self.rate
        return {"height": self.height}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the height down."""
        Path(checkpoint_dir, "height").write_text(str(self.height))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a height."""
        self.height = float(Path(checkpoint, "height").read_text())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another rate without another actor."""
        self.rate = new_config["rate"]
        return True


def failures(folder: str) -> None:
    """Trials fail twice each, and end with their last step."""
    marks = Path(folder, "marks")
    marks.mkdir()
    results = tune.Tuner(
        steps,
        param_space={"x": tune.grid_search([1, 2, 3]), "failures": str(marks)},
        run_config=tune.RunConfig(
            storage_path=folder, name="failures", verbose=0, failure_config=tune.FailureConfig(max_failures=3)
        ),
    ).fit()
    print(
        "RESULT", results.num_errors, sorted(result.metrics["score"] for result in results), len(list(marks.iterdir()))
    )


def unforgiven(folder: str) -> None:
    """A trial that always fails is an error, the other ones are not."""

    def failing(config: dict[str, int]) -> None:
        if config["x"] == 1:
            raise ValueError("always")
        tune.report({"score": config["x"]})

    results = tune.Tuner(
        failing,
        param_space={"x": tune.grid_search([0, 1, 2])},
        run_config=tune.RunConfig(storage_path=folder, name="unforgiven", verbose=0),
    ).fit()
    errors = [str(error).strip().splitlines()[-1] for error in results.errors]
    print("RESULT", results.num_errors, errors, sorted(r.metrics["score"] for r in results if r.error is None))


def population(folder: str) -> None:
    """A population ends with the largest rates."""
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=3,
        quantile_fraction=0.5,
        hyperparam_mutations={"rate": [1.0, 2.0, 3.0]},
    )
    results = tune.Tuner(
        Climber,
        param_space={"rate": tune.grid_search([1.0, 3.0])},
        tune_config=tune.TuneConfig(metric="height", mode="max", scheduler=scheduler, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=folder,
            name="population",
            verbose=0,
            stop={"training_iteration": 12},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=3),
        ),
    ).fit()
    worst = min(result.metrics["height"] for result in results)
    print("RESULT", results.num_errors, results.get_best_result().metrics["height"] >= 30, worst > 12)


def optuna(folder: str) -> None:
    """A search whose seed is known proposes the same on any core."""
    results = tune.Tuner(
        lambda config: tune.report({"loss": (config["x"] - 1) ** 2 + config["k"]}),
        param_space={"x": tune.uniform(-5, 5), "k": tune.choice([0, 1])},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", num_samples=10, max_concurrent_trials=1, search_alg=OptunaSearch(seed=1)
        ),
        run_config=tune.RunConfig(storage_path=folder, name="optuna", verbose=0),
    ).fit()
    print("RESULT", round(results.get_best_result().metrics["loss"], 9), len(results), results.num_errors)


def interrupted(folder: str) -> None:
    """The driver that is to be killed."""
    start(2)
    tune.Tuner(
        steps,
        param_space={"x": tune.grid_search([1, 2]), "pause": 1.0},
        run_config=tune.RunConfig(storage_path=folder, name="killed", verbose=0),
    ).fit()


def restored(folder: str) -> None:
    """What a killed driver had begun is brought to its end by another one."""
    child = subprocess.Popen([*runner(), __file__, folder], stdout=subprocess.DEVNULL)
    seen = Path(folder, "killed")
    while sum(1 for _ in seen.glob("*/checkpoint_*")) < 2 or not list(seen.glob("experiment_state*")):
        if child.poll() is not None:
            raise SystemExit("the driver ended before it was killed")
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    results = tune.Tuner.restore(str(seen), trainable=steps, resume_unfinished=True, restart_errored=True).fit()
    print("RESULT", results.num_errors, sorted(result.metrics["score"] for result in results))


def runner() -> list[str]:
    """Return the command that runs a Python file as this one is run."""
    return [sys.executable] if "rabbitry" not in sys.modules else [sys.executable, "-m", "rabbitry.as_ray"]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        interrupted(sys.argv[1])
        sys.exit()
    start(2)
    with tempfile.TemporaryDirectory() as folder:
        for part in (failures, unforgiven, population, optuna, restored):
            begin = time.perf_counter()
            part(folder)
            print(f"TIMED {part.__name__} {time.perf_counter() - begin:.1f} s,")
    ray.shutdown()

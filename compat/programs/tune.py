"""Eight trials under ASHA; the best one is known."""

from __future__ import annotations

import tempfile

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from compat.session import start


def trial(config: dict[str, int]) -> None:
    """Report ten growing scores."""
    for step in range(10):
        tune.report({"score": config["x"] * (step + 1)})


if __name__ == "__main__":
    start(2)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            trial,
            param_space={"x": tune.grid_search([1, 2, 3, 4, 5, 6, 7, 8])},
            tune_config=tune.TuneConfig(metric="score", mode="max", scheduler=ASHAScheduler(max_t=10, grace_period=1)),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
        best = results.get_best_result()
        print("RESULT", best.config, best.metrics["score"], len(results), results.num_errors)
    ray.shutdown()

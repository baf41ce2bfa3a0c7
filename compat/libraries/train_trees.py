# /// script
# dependencies = ["ray[data,train]", "xgboost", "lightgbm", "pandas"]
# ///
"""Train: XGBoost and LightGBM, two workers each that read a dataset together, a checkpoint, and what it predicts."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import ray
import ray.data
import ray.train
import xgboost
from ray.train import RunConfig, ScalingConfig
from ray.train.lightgbm import LightGBMTrainer
from ray.train.lightgbm import RayTrainReportCallback as LightGBMCallback
from ray.train.xgboost import RayTrainReportCallback as XGBoostCallback
from ray.train.xgboost import XGBoostTrainer

from compat.session import start

ROWS, FEATURES, ROUNDS = 4000, 4, 10


def table() -> pd.DataFrame:
    """Return rows of small whole numbers: how they are dealt out to workers does not change where trees split."""
    numbers = np.random.default_rng(0).integers(0, 16, (ROWS, FEATURES)).astype(np.float64)
    frame = pd.DataFrame(numbers, columns=[f"f{column}" for column in range(FEATURES)])
    return frame.assign(y=(numbers.sum(1) > 30).astype(np.float64))


def shard() -> tuple[np.ndarray, np.ndarray]:
    """Return this worker's rows and labels."""
    batches = list(ray.train.get_dataset_shard("train").iter_batches(batch_size=None, batch_format="numpy"))
    columns = [np.concatenate([batch[f"f{column}"] for batch in batches]) for column in range(FEATURES)]
    return np.stack(columns, 1), np.concatenate([batch["y"] for batch in batches])


def xgboost_loop(config: dict[str, Any]) -> None:
    """Train together with the other workers, over XGBoost's own connections."""
    x, y = shard()
    rows = xgboost.DMatrix(x, label=y)
    world = xgboost.collective.get_world_size()
    xgboost.train(
        {"objective": "binary:logistic", "tree_method": "hist", "nthread": 1, "eval_metric": ["logloss"]},
        rows,
        num_boost_round=ROUNDS,
        evals=[(rows, "train")],
        verbose_eval=False,
        callbacks=[
            XGBoostCallback(results_postprocessing_fn=lambda values: {**values, "world": world, "rows": len(y)})
        ],
    )


def lightgbm_loop(config: dict[str, Any]) -> None:
    """Train together with the other workers, over LightGBM's own connections."""
    network = ray.train.lightgbm.get_network_params()
    x, y = shard()
    rows = lightgbm.Dataset(x, label=y)
    lightgbm.train(
        {
            "objective": "binary",
            "metric": ["binary_logloss"],
            "num_threads": 1,
            "verbose": -1,
            "tree_learner": "data",
            "pre_partition": True,
            **network,
        },
        rows,
        num_boost_round=ROUNDS,
        valid_sets=[rows],
        valid_names=["train"],
        callbacks=[
            LightGBMCallback(
                results_postprocessing_fn=lambda values: {**values, "world": network["num_machines"], "rows": len(y)}
            )
        ],
    )


if __name__ == "__main__":
    start(4)
    rows = table()
    x, y = rows.drop(columns="y").to_numpy(), rows["y"].to_numpy()
    for name, trainer, loop in (
        ("xgboost", XGBoostTrainer, xgboost_loop),
        ("lightgbm", LightGBMTrainer, lightgbm_loop),
    ):
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as storage:
            result = trainer(
                loop,
                datasets={"train": ray.data.from_pandas(rows).repartition(8)},
                scaling_config=ScalingConfig(num_workers=2),
                run_config=RunConfig(storage_path=storage, name=name),
            ).fit()
            if name == "xgboost":
                answers = XGBoostCallback.get_model(result.checkpoint).predict(xgboost.DMatrix(x))
                loss = round(result.metrics["train-logloss"], 4)
            else:
                answers = LightGBMCallback.get_model(result.checkpoint).predict(x)
                loss = round(result.metrics["train-binary_logloss"], 2)  # of the first worker's own rows
        print("RESULT", name, result.metrics["world"], result.metrics["rows"], loss, int(((answers > 0.5) == y).sum()))
        print(f"TIMED {name} {time.perf_counter() - begin:.1f} s,")
    ray.shutdown()

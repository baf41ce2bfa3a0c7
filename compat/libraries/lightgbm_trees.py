# /// script
# dependencies = ["lightgbm_ray", "scikit-learn", "xgboost<2.1", "pandas<3", "ray[train,tune]"]
# ///
"""lightgbm_ray: two actors train, predictions."""

from __future__ import annotations

import time

import numpy as np
from lightgbm_ray import RayDMatrix, RayParams, predict, train

from compat.session import start

if __name__ == "__main__":
    start(4)
    random = np.random.default_rng(0)
    x = random.random((2000, 5))
    y = (x.sum(1) > 2.5).astype(int)
    begin = time.perf_counter()
    evaluated: dict[str, dict[str, list[float]]] = {}
    booster = train(
        {"objective": "binary", "metric": ["binary_logloss"], "num_threads": 2},
        RayDMatrix(x, y),
        num_boost_round=10,
        evals_result=evaluated,
        valid_sets=[RayDMatrix(x, y)],
        valid_names=["train"],
        verbose_eval=False,
        ray_params=RayParams(num_actors=2, cpus_per_actor=2),
    )
    print("RESULT", [round(loss, 5) for loss in evaluated["train"]["binary_logloss"]])
    answers = predict(booster, RayDMatrix(x), ray_params=RayParams(num_actors=2, cpus_per_actor=2))
    print("RESULT", int(((answers > 0.5) == y).sum()))
    print(f"TIMED {time.perf_counter() - begin:.2f} s")

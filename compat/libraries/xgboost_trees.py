# /// script
# dependencies = ["xgboost_ray", "xgboost<2.1", "pandas<3", "ray[train,tune]"]
# ///
"""xgboost_ray: two actors train, an actor is killed, predictions."""

from __future__ import annotations

import time

import numpy as np
from xgboost_ray import RayDMatrix, RayParams, predict, train

from compat.session import start

if __name__ == "__main__":
    start(4)
    random = np.random.default_rng(0)
    x = random.random((2000, 5))
    y = (x.sum(1) > 2.5).astype(int)
    begin = time.perf_counter()
    evaluated: dict[str, dict[str, list[float]]] = {}
    booster = train(
        {"objective": "binary:logistic", "eval_metric": ["logloss"], "nthread": 1, "tree_method": "hist"},
        RayDMatrix(x, y),
        num_boost_round=10,
        evals_result=evaluated,
        evals=[(RayDMatrix(x, y), "train")],
        verbose_eval=False,
        ray_params=RayParams(num_actors=2, cpus_per_actor=1),
    )
    print("RESULT", [round(loss, 6) for loss in evaluated["train"]["logloss"]])
    answers = predict(booster, RayDMatrix(x), ray_params=RayParams(num_actors=2, cpus_per_actor=1))
    print("RESULT", int(((answers > 0.5) == y).sum()))
    print(f"TIMED {time.perf_counter() - begin:.2f} s")

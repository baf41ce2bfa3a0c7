# /// script
# dependencies = ["scikit-learn", "joblib"]
# ///
"""scikit-learn: a search over a grid, a forest and a cross-validation, by Ray's backend of joblib."""

from __future__ import annotations

import time

import joblib
from ray.util.joblib import register_ray
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.svm import SVC

from compat.session import start

if __name__ == "__main__":
    start(2)
    register_ray()
    x, y = load_digits(return_X_y=True)
    begin = time.perf_counter()
    with joblib.parallel_backend("ray"):
        search = GridSearchCV(SVC(), {"C": [0.1, 1.0, 10.0], "gamma": [1e-4, 1e-3]}, cv=3, n_jobs=2).fit(x, y)
        print("RESULT", search.best_params_, round(search.best_score_, 6))
        print(f"TIMED search {time.perf_counter() - begin:.2f} s,")
        begin = time.perf_counter()
        forest = RandomForestClassifier(40, random_state=0, n_jobs=2).fit(x[:1000], y[:1000])
        print("RESULT", round(forest.score(x[1000:], y[1000:]), 6))
        print("RESULT", cross_val_score(SVC(), x, y, cv=4, n_jobs=2).round(6).tolist())
    print(f"TIMED forest {time.perf_counter() - begin:.2f} s")

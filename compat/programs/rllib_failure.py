"""RLlib: PPO learns CartPole to a mean return of 150 with two env runners, one of which is killed on the way."""

from __future__ import annotations

import os
import signal
import time

import ray
from ray.rllib.algorithms.ppo import PPOConfig

from compat.session import start

GOAL, MOST_ITERATIONS = 150.0, 60

if __name__ == "__main__":
    start(4)
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2, num_envs_per_env_runner=4)
        .training(lr=0.0005, train_batch_size_per_learner=2000, num_epochs=6, minibatch_size=256, vf_loss_coeff=0.01)
        .fault_tolerance(restart_failed_env_runners=True)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    begin = time.perf_counter()
    killed = 0
    for iteration in range(MOST_ITERATIONS):
        reached = algorithm.train().get("env_runners", {}).get("episode_return_mean", 0.0)
        if iteration == 1:
            pids = algorithm.env_runner_group.foreach_env_runner(lambda _: os.getpid(), local_env_runner=False)
            os.kill(pids[0], signal.SIGKILL)
            killed = len(pids)
        if reached >= GOAL:
            break
    seconds = time.perf_counter() - begin
    healthy = algorithm.env_runner_group.num_healthy_remote_workers()
    print("RESULT", killed, reached >= GOAL, healthy)
    print(f"TIMED {iteration + 1} iterations, {seconds / (iteration + 1):.2f} s each")
    algorithm.stop()
    ray.shutdown()

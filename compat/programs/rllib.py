"""PPO on CartPole with two env runners, for three iterations."""

from __future__ import annotations

import ray
from ray.rllib.algorithms.ppo import PPOConfig

from compat.session import start

if __name__ == "__main__":
    start(4)
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2)
        .training(train_batch_size_per_learner=1000, num_epochs=2)
    )
    algorithm = config.build_algo()
    for _ in range(3):
        result = algorithm.train()
    print("RESULT", result["training_iteration"], result["env_runners"]["episode_return_mean"] > 0)
    algorithm.stop()
    ray.shutdown()

# /// script
# dependencies = ["torch", "numpy"]
# ///
"""The skeleton of an RL trainer: colocated named actors in placement groups, torch rendezvous, weights to samplers."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from compat.session import start

WORLD = 2


@ray.remote(num_cpus=0)
class Register:
    """Where the ranks meet."""

    def __init__(self) -> None:
        self.address: tuple[str, int] | None = None

    def set(self, address: tuple[str, int]) -> None:
        """Note where rank 0 listens."""
        self.address = address

    def get(self) -> tuple[str, int] | None:
        """Return where rank 0 listens."""
        return self.address


@ray.remote
class Learner:
    """One rank of a trainer under DDP."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def rendezvous(self) -> str:
        """Join the process group; return its backend."""
        import torch.distributed as dist

        register = ray.get_actor("register")
        if self.rank == 0:
            import socket

            with socket.socket() as listener:
                listener.bind(("", 0))
                port = listener.getsockname()[1]
            ray.get(register.set.remote((ray.util.get_node_ip_address(), port)))
        while (address := ray.get(register.get.remote())) is None:
            time.sleep(0.05)
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address[0], str(address[1])
        dist.init_process_group("gloo", rank=self.rank, world_size=self.world)
        return str(dist.get_backend())

    def build(self) -> None:
        """Make the model, the same on all ranks."""
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(1)
        self.model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05)

    def step(self, batch: dict[str, Any]) -> float:
        """Learn from a batch; return the loss."""
        import torch

        x, y = torch.from_numpy(batch["x"].copy()), torch.from_numpy(batch["y"].copy())
        loss = ((self.model(x) - y) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def weights(self) -> dict[str, Any]:
        """Return the parameters as numpy has them."""
        return {name: value.detach().numpy() for name, value in self.model.module.state_dict().items()}

    def where(self) -> tuple[str, str]:
        """Return the node and the placement group that it runs in."""
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_placement_group_id()


@ray.remote(num_cpus=0.5, max_concurrency=4)
class Sampler:
    """Makes rollouts with the newest weights."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.version = 0
        self.current: dict[str, Any] = {}

    def load(self, version: int, weights: dict[str, Any]) -> int:
        """Take weights."""
        self.version, self.current = version, weights
        return version

    async def sample(self, size: int) -> dict[str, Any]:
        """Return a batch."""
        x = self.random.standard_normal((size, 8)).astype(np.float32)
        return {"x": x, "y": x.sum(1, keepdims=True)}


if __name__ == "__main__":
    start(4)
    begin = time.perf_counter()
    # Spread, for a sampler needs room beside each bundle: on nodes of two CPUs, PACK would leave none, on Ray neither.
    group = placement_group([{"CPU": 1}] * WORLD, strategy="SPREAD", name="trainer")
    ray.get(group.ready(), timeout=60)
    print("RESULT", placement_group_table(group)["state"], group.bundle_count)
    register = Register.options(name="register").remote()
    learners = [
        Learner.options(
            name=f"learner_{rank}",
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            runtime_env={"env_vars": {"RANK": str(rank), "WORLD_SIZE": str(WORLD)}},
        ).remote(rank, WORLD)
        for rank in range(WORLD)
    ]
    print("RESULT", ray.get([learner.rendezvous.remote() for learner in learners]))
    places = ray.get([learner.where.remote() for learner in learners])
    print("RESULT", {place[1] for place in places} == {group.id.hex()})
    samplers = [
        Sampler.options(scheduling_strategy=NodeAffinitySchedulingStrategy(place[0], soft=True)).remote(number)
        for number, place in enumerate(places)
    ]
    ray.get([learner.build.remote() for learner in learners])
    for iteration in range(20):
        batches = [sampler.sample.remote(64) for sampler in samplers]
        losses = ray.get([learner.step.remote(batch) for learner, batch in zip(learners, batches, strict=True)])
        weights = learners[0].weights.remote()
        ray.get([sampler.load.remote(iteration, weights) for sampler in samplers])
    print("RESULT", [round(loss, 5) for loss in losses])
    print(f"TIMED {time.perf_counter() - begin:.2f} s")
    ray.kill(ray.get_actor("learner_1"))
    remove_placement_group(group)
    for actor in (*samplers, register):
        ray.kill(actor)
    ray.shutdown()

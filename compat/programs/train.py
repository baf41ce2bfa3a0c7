"""Two workers of torch DDP over gloo; the loss is known to the last digit."""

from __future__ import annotations

import tempfile
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from compat.session import start


def loop(config: dict[str, Any]) -> None:
    """Train a small linear model for five steps."""
    import torch
    import torch.distributed as dist
    from ray.train.torch import prepare_model

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = prepare_model(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rank = ray.train.get_context().get_world_rank()
    x = torch.randn(64, 4) + rank
    y = x.sum(1, keepdim=True)
    for step in range(5):
        loss = ((model(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        checkpoint = None
        if rank == 0 and step == 4:
            folder = tempfile.mkdtemp()
            torch.save(model.state_dict(), f"{folder}/model.pt")
            checkpoint = Checkpoint.from_directory(folder)
        metrics = {"loss": loss.item(), "world": dist.get_world_size(), "backend": dist.get_backend()}
        ray.train.report(metrics, checkpoint=checkpoint)


if __name__ == "__main__":
    start(4)
    with tempfile.TemporaryDirectory() as storage:
        trainer = TorchTrainer(
            loop,
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(storage_path=storage, name="compat"),
        )
        result = trainer.fit()
        print("RESULT", result.metrics["loss"], result.metrics["world"], result.metrics["backend"])
    ray.shutdown()

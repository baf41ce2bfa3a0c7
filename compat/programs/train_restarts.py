"""Train: four workers of DDP that read a dataset, checkpoints, and a worker that is killed in the middle."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import ray.train
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from compat.session import start

STEPS, WORKERS = 6, 4


def loop(config: dict[str, Any]) -> None:
    """Train a small linear model from the last checkpoint on; one worker dies once at step 3."""
    import torch
    import torch.distributed as dist
    from ray.train.torch import prepare_model

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    begin = 0
    last = ray.train.get_checkpoint()
    if last is not None:
        with last.as_directory() as folder:
            saved = torch.load(Path(folder, "model.pt"))
            model.load_state_dict(saved["model"])
            begin = saved["step"] + 1
    model = prepare_model(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    rows = [batch["x"] for batch in ray.train.get_dataset_shard("train").iter_torch_batches(batch_size=64)]
    read = torch.tensor(sum(len(batch) for batch in rows))
    dist.all_reduce(read)
    x = (torch.arange(64, dtype=torch.float32)[:, None] + rank) / 64
    for step in range(begin, STEPS):
        loss = ((model(x) - 3 * x - 1) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mark = Path(config["marks"], "died")
        if rank == 1 and step == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        checkpoint = None
        if rank == 0:
            folder = tempfile.mkdtemp()
            state = {"model": model.module.state_dict(), "step": step}
            torch.save(state, Path(folder, "model.pt"))
            checkpoint = Checkpoint.from_directory(folder)
        metrics = {
            "loss": loss.item(),
            "step": step,
            "began": begin,
            "read": int(read),
            "world": context.get_world_size(),
        }
        ray.train.report(metrics, checkpoint=checkpoint)


if __name__ == "__main__":
    start(6)
    with tempfile.TemporaryDirectory() as storage:
        result = TorchTrainer(
            loop,
            train_loop_config={"marks": storage},
            datasets={"train": ray.data.from_numpy(np.arange(1000, dtype=np.float32)).rename_columns({"data": "x"})},
            scaling_config=ScalingConfig(num_workers=WORKERS),
            run_config=RunConfig(
                storage_path=storage,
                name="compat",
                failure_config=FailureConfig(max_failures=2),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        ).fit()
        metrics = result.metrics
        print("RESULT", metrics["loss"], metrics["step"], metrics["began"] > 0, metrics["read"], metrics["world"])
        print("RESULT", Path(storage, "died").exists(), len(result.best_checkpoints), result.error)
        try:
            TorchTrainer(
                lambda: 1 / 0,
                scaling_config=ScalingConfig(num_workers=2),
                run_config=RunConfig(storage_path=storage, name="wrong"),
            ).fit()
        except ray.train.TrainingFailedError as error:
            print("RESULT", type(error).__name__, "ZeroDivisionError" in str(error))
    ray.shutdown()

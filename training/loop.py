"""One training loop for all parts: AdamW, warm-up and cosine decay, EMA, checkpoints, a log, fixed seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

Loss = Callable[[torch.Generator, int], Tensor]


@contextmanager
def in_turn() -> Iterator[None]:
    """Under `torchrun` the first process does this before the others, who then find what it left on the disk. All of
    them must come here: whoever comes alone waits for ever."""
    first = not dist.is_initialized() or dist.get_rank() == 0
    if not first:
        dist.barrier()
    yield
    if first and dist.is_initialized():
        dist.barrier()


def fit(
    name: str,
    module: nn.Module,
    loss: Loss,
    steps: int,
    work: Path,
    *,
    lr: float = 1e-3,
    beta2: float = 0.999,
    ema: float = 0.999,
    first: int = 0,
    every: int | None = None,
    look: Callable[[int], None] | None = None,
) -> None:
    r"""Train `module` for `steps` steps and leave the exponential moving average of its weights in it.

    Step i draws its randomness from a generator seeded by i alone, and the whole state is saved every `every` steps
    (250, or half of fewer), so a run that was stopped goes on with the same batches; the diffusion model's weights
    need not be the same bit for bit if it was stopped between its two cycles. A finished part is not trained
    again. Under `torchrun` every process takes a loss of its own and the gradients are averaged: on small networks two
    processes of one thread are faster than one of two.

    Args:
        name: names the checkpoint, the log and the progress bar.
        loss: (generator, draw) → scalar loss of a batch; `draw` numbers the batches, over all processes.
        first: number of the first draw: a second cycle sees other batches than the first.
        look: called with the step every 500 steps and at the end, the averaged weights in the module (sample grids).
    """
    every = every or max(1, min(250, steps // 2))
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    state = work / f"{name}.pt"
    done = work / f"{name}.safetensors"
    if done.exists():
        module.load_state_dict(load_file(done))
        return
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, betas=(0.9, beta2), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * i / steps)) / 2)
    )
    average = {key: value.detach().clone() for key, value in module.state_dict().items()}
    start = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        average, start = saved["average"], saved["step"]

    def with_average(call: Callable[[], None]) -> None:
        current = {key: value.detach().clone() for key, value in module.state_dict().items()}
        module.load_state_dict(average)
        module.eval()
        with torch.no_grad():
            call()
        module.train()
        module.load_state_dict(current)

    module.train()
    bar = tqdm(range(start, steps), name, total=steps, initial=start, mininterval=2, disable=rank > 0)
    for step in bar:
        draw = first + step * world + rank
        value = loss(torch.Generator().manual_seed(draw), draw)
        if not torch.isfinite(value):
            raise FloatingPointError(f"{name}: the loss is {value.item()} at step {step}; lower the learning rate")
        optimizer.zero_grad()
        value.backward()
        if world > 1:
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients]) / world
            dist.all_reduce(flat)
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(ema, (1 + step) / (10 + step))
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                average[key].lerp_(tensor.detach(), 1 - decay)
            else:
                average[key].copy_(tensor)
        if rank == 0 and step % 25 == 0:
            bar.set_postfix(loss=f"{value.item():.4f}")
            with open(work / f"{name}.log.jsonl", "a") as log:
                log.write(json.dumps({"step": step, "loss": round(value.item(), 6)}) + "\n")
        if rank == 0 and ((step + 1) % every == 0 or step + 1 == steps):
            partial = state.with_suffix(".part")
            torch.save(
                {
                    "module": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average,
                    "schedule": schedule.state_dict(),
                    "step": step + 1,
                },
                partial,
            )
            partial.replace(state)
            if look and ((step + 1) % 500 == 0 or step + 1 == steps):
                with_average(lambda step=step: look(step + 1))  # type: ignore[misc]
    module.load_state_dict(average)
    module.eval()
    if rank > 0:
        return
    save_file({key: value.contiguous() for key, value in average.items()}, done.with_suffix(".part"))
    done.with_suffix(".part").replace(done)
    state.unlink(missing_ok=True)

"""Several processes as one: the few agreements that a distributed run needs, over torchrun and torch.distributed.

Gradients are summed, not averaged, after each loss was divided by the true count over all processes: so an uneven last
batch weighs each image once, a process without images adds nothing, and any number of parameter groups works. torch's
DDP would average over processes and wants every process to run the same forward once a step.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from convsmith.errors import ConvsmithError

BUCKET_BYTES = 32 * 2**20
Value = TypeVar("Value")


class Processes:
    """The processes of one run; of one process, every agreement is free.

    Args:
        rank: this process's number, from 0.
        world: how many there are.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank = rank
        self.world = world
        self._pending: tuple[Any, Tensor] | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that plans, writes and speaks."""
        return self.rank == 0

    def agree(self, stop: int) -> int:
        """Return the largest `stop` that any process gave one call earlier, so that all leave at the same step.

        The exchange begun here is read at the next call: it runs beside the step, on the CPU, and never waits for the
        accelerator.
        """
        if self.world == 1:
            return stop
        agreed = 0
        if self._pending is not None:
            work, flag = self._pending
            work.wait()
            agreed = int(flag)
        flag = torch.tensor([stop])
        work = None if agreed else dist.all_reduce(flag, op=dist.ReduceOp.MAX, async_op=True)
        self._pending = (work, flag) if work is not None else None
        return agreed

    def settle(self) -> None:
        """Wait for the exchange still under way, if any."""
        if self._pending is not None:
            self._pending[0].wait()
            self._pending = None

    def largest(self, number: int) -> int:
        """The largest `number` of all processes, now."""
        if self.world == 1:
            return number
        flag = torch.tensor([number])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return int(flag)

    def total(self, count: int | Tensor, device: torch.device) -> int | Tensor:
        """The sum of `count` over all processes; stays on the device."""
        if self.world == 1:
            return count
        summed = torch.as_tensor(count, dtype=torch.float64, device=device).reshape(()).clone()
        dist.all_reduce(summed)
        return summed

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes, several in one exchange."""
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.grad is None and parameter.requires_grad:  # what is frozen now has none on any process
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets([parameter.grad for parameter in parameters if parameter.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def share_weights(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers, whatever each one's own code drew."""
        if self.world > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), src=0)

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers (the running statistics of norms)."""
        if self.world > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def broadcast(self, value: Value) -> Value:
        """Give every process the first one's plain value."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Value) -> list[Value]:
        """Every process's plain value, in the order of their numbers, on all of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


SINGLE = Processes()


@contextlib.contextmanager
def joined(timeout: float = 3600.0) -> Iterator[Processes]:
    """Join the processes that torchrun started, or be the only one.

    Args:
        timeout: seconds after which an exchange that another process does not answer fails.

    Raises:
        ConvsmithError: another process of the run ended or stopped answering.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout))
    try:
        yield Processes(dist.get_rank(), world)
    except (RuntimeError, dist.DistBackendError) as error:
        if "peer" not in str(error) and "imed out" not in str(error):
            raise
        raise ConvsmithError(
            f"Process {dist.get_rank()} of {world} lost another one: {str(error).splitlines()[0][:200]}.",
            mend="Its own output says why it ended; the run goes on from its last checkpoint with: convsmith resume.",
        ) from error
    # Left standing after an error: with another process gone, tearing it down can abort this one, unheard.
    dist.destroy_process_group()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bytes_ = tensor.numel() * tensor.element_size()
        if bucket and (size + bytes_ > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += bytes_
    if bucket:
        yield bucket

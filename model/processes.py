"""The processes of a training: one, or several that `torchrun` started, each with streams of its own.

Axes: B batch (all streams); a process has B / `count` of them, in the order of the ranks.
"""

import atexit
import os
from collections.abc import Callable
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import Precision
from torch import Tensor, distributed

from carousel.errors import CarouselError

Made = TypeVar("Made")


class ProcessesError(CarouselError):
    """The processes do not fit the machine or the recipe."""


def torchrun_started() -> bool:
    """Whether this process is one of those that `torchrun` started."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


def first_of_its_machine() -> bool:
    """Whether this process speaks for the others beside it, which meet the same mistakes."""
    return not torchrun_started() or os.environ["LOCAL_RANK"] == "0"


class Processes:
    """This process and those it trains together with.

    Args:
        precision: Of the matrix products.

    Raises:
        ProcessesError: there are more of them on this machine than it has GPUs.
    """

    def __init__(self, precision: Precision) -> None:
        self.fabric = _several(precision) if torchrun_started() else Fabric(devices=1, plugins=[precision])
        self.count, self.rank = self.fabric.world_size, self.fabric.global_rank
        self.first = self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.fabric.device

    def own(self, all_streams: Tensor) -> Tensor:
        """The rows of this process, of a tensor `[B, ...]`, on its device."""
        return self.fabric.to_device(all_streams.chunk(self.count)[self.rank])

    def everyones(self, own: Tensor) -> Tensor:
        """The rows `[B, ...]` of all processes, known to each of them, from the rows of each."""
        if self.count == 1:
            return own
        own = own.to(self.device).contiguous()
        rows = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(rows, own)
        return torch.cat(rows)

    def mean(self, number: float) -> float:
        """The mean over the processes; not a number where one of theirs is not."""
        return self._reduced(number, distributed.ReduceOp.SUM) / self.count

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes have."""
        return int(self._reduced(number, distributed.ReduceOp.MAX))

    def by_first(self, act: Callable[[], Made]) -> Made:
        """Let the first process act, and every process have what came of it: the result, or the mistake."""
        outcome: Made | Exception | None = None
        if self.first:
            try:
                outcome = act()
            except (CarouselError, OSError) as error:
                outcome = error
        outcome = self.fabric.broadcast(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[return-value]  # the first one has acted

    def _reduced(self, number: float, how: "distributed.ReduceOp.RedOpType") -> float:
        if self.count == 1:
            return number
        tensor = torch.tensor(number, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, how)
        return float(tensor)


def _several(precision: Precision) -> Fabric:
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    cuda = torch.cuda.is_available()
    if cuda and here > (devices := torch.cuda.device_count()):
        raise ProcessesError(
            f"{here} processes on a machine with {devices} GPUs: expected one for each at most"
        )
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        strategy="ddp",
        devices=here,
        num_nodes=everywhere // here,
        plugins=[precision],
    )
    already = distributed.is_initialized()
    fabric.launch()
    if not already:
        atexit.register(_part)
    return fabric


def _part() -> None:
    """Let go of the others in order: a group that is still there when Python ends can abort the process."""
    if distributed.is_initialized():
        distributed.destroy_process_group()

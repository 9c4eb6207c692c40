"""The generators of random numbers, as they stand, of every process of a training."""

import torch
from torch import Tensor

from model.processes import Processes


def seed(number: int, processes: Processes) -> None:
    """Let each process draw numbers of its own (dropout) from now on; the first goes on as it is."""
    if not processes.first:
        torch.manual_seed(number + processes.rank)


def packed(processes: Processes) -> dict[str, Tensor]:
    """The state of every process's generators, uint8 `[processes, n]`, by kind; all processes call it together."""
    states = {"cpu": processes.everyones(torch.get_rng_state()[None])}
    if processes.device.type == "cuda":
        states["cuda"] = processes.everyones(torch.cuda.get_rng_state()[None])
    return states


def unpack(states: dict[str, Tensor], processes: Processes) -> None:
    """Go on where this process's generators stood; a process that was not there before draws on as it is."""
    _set("cpu", states, processes.rank)
    if "cuda" in states and processes.device.type == "cuda":
        _set("cuda", states, processes.rank)


def _set(kind: str, states: dict[str, Tensor], rank: int) -> None:
    module = torch.cuda if kind == "cuda" else torch.random
    rows = states[kind].reshape(
        -1, len(module.get_rng_state())
    )  # checkpoints of one process once had no rows
    if rank < len(rows):
        module.set_rng_state(rows[rank].clone())

"""The flip-flop: a task whose memory is known, and an LSTM that solves it, made by hand.

N bits. Each channel of the input is a pulse of -1 or 1 now and then, else 0; each channel of the output is the last
pulse of its own. A network that solves it holds 2^N stable fixed points under no input, one for each memory.

Axes: T time, B batch, N bits.

Source: Sussillo & Barak 2013.
"""

import torch
from torch import Tensor

from model.cells.lstm import LSTM

_GAIN, _PULSE = 4.0, 8.0
_OPEN = 20.0
"""A pre-activation whose sigmoid is 1 to eight digits."""


def pulses(steps: int, sequences: int, bits: int, seed: int = 0, often: float = 0.1) -> tuple[Tensor, Tensor]:
    """Inputs and targets, `[T, B, N]` each, double; every channel has a pulse at the first step, so that all is known."""
    draw = torch.Generator().manual_seed(seed)
    shape = (steps, sequences, bits)
    signs = 2.0 * torch.randint(0, 2, shape, generator=draw, dtype=torch.float64) - 1
    there = torch.rand(shape, generator=draw) < often
    there[0] = True
    inputs = signs * there
    held, targets = torch.zeros(shape[1:], dtype=torch.float64), []
    for x, now in zip(inputs, there, strict=True):
        held = torch.where(now, x, held)
        targets.append(held)
    return inputs, torch.stack(targets)


def by_hand(bits: int) -> LSTM:
    """A unit for each bit: half of the cell is kept, half is tanh(4 h + 8 x), and the output gate is open.

    Without input a unit is at rest where c = tanh(4 tanh(c)): at 0, and at plus and minus 0.9954. At 0 the slope of
    its step is 1/2 + 4/2 = 2.5, unstable; the other two are stable. N units have 3^N fixed points, 2^N of them stable.
    """
    cell = LSTM(bits, bits).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.blocks(cell.weight_h)["candidate"].copy_(_GAIN * torch.eye(bits))
        cell.blocks(cell.weight_x)["candidate"].copy_(_PULSE * torch.eye(bits))
        cell.blocks(cell.bias)["output"].fill_(_OPEN)
    return cell

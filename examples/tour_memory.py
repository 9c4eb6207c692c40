"""The tour's pictures of memory: how much fits in, for how long, and how exactly."""

from typing import Any

import torch
from torch import Tensor

from model.cells.gru import GRU
from model.cells.lstm import LSTM
from model.costs import COSTS, TRANSFORMER, count
from model.diagnostics.capacity import driven_states, memory_capacity
from model.diagnostics.information import (
    autoregression,
    autoregression_information,
    gaussian_information,
    nearest_neighbour_information,
)
from model.diagnostics.pictures import COLOURS, INK, canvas
from model.initialise import initialise
from model.model_recipe import InitialiseRecipe, PlainCell, RNNCell
from model.over_time import unroll
from model.stack import Stack

UNITS, DELAYS = 40, 80


def capacity() -> Any:
    """Memory capacity of networks that have learned nothing."""
    figure, axes = canvas(height=3.0)
    made = {
        f"LSTM, forget bias {bias}": (PlainCell(kind="lstm"), InitialiseRecipe(forget_bias=bias))
        for bias in (0, 1, 3)
    }
    made["RNN"] = (RNNCell(kind="rnn"), InitialiseRecipe())
    for name, (cell, recipe) in made.items():
        stack = Stack(1, UNITS, 1, cell=cell)
        initialise(next(stack.by_layer()), recipe)
        (states_TBU,), signal_TB = driven_states(stack.double(), torch.randn(100, 4, 1).double() / 4)
        read_K = memory_capacity(states_TBU, signal_TB, DELAYS)
        axes[0][0].plot(read_K, label=f"{name}: {float(read_K.sum()):.0f} of {UNITS}")
    axes[0][0].set_xlabel("delay k (steps)")
    axes[0][0].set_ylabel("r² of reconstructing the input")
    axes[0][0].legend(title="capacity (steps) of units")
    return figure


def information() -> Any:
    """Both estimators where the truth is known, with few samples and with many."""
    figure, axes = canvas(1, 2, height=2.9, sharey=True)
    lags = (1, 2, 4, 8, 16, 32)
    for axis, samples in zip(axes[0], (200, 2000), strict=True):
        axis.plot(lags, [autoregression_information(0.9, lag) for lag in lags], color=INK, label="truth")
        process_TB = autoregression(0.9, lags[-1] + 1, samples)
        pairs = [(process_TB[-1], process_TB[-1 - lag]) for lag in lags]
        normal = [gaussian_information(x[:, None], y[:, None]) for x, y in pairs]
        near = [nearest_neighbour_information(x, y) for x, y in pairs]
        axis.plot(lags, normal, "o", label="normal")
        axis.plot(lags, near, "s", label="nearest neighbours")
        axis.set_xscale("log", base=2)
        axis.set_xticks(lags, map(str, lags))
        axis.set_xlabel("k (steps)")
        axis.set_title(f"{samples} samples")
    axes[0][0].set_ylabel("I(x[t]; x[t-k]) (nats)")
    axes[0][1].legend()
    return figure


def counting() -> Any:
    """Ones come in; a cell state adds them up, an average cannot."""
    figure, axes = canvas(1, 2, height=2.8)
    steps = torch.arange(1, 101)
    ones_TBI = torch.ones(100, 1, 1)
    runs = {"LSTM: cell state": _states(_counting_lstm(), ones_TBI, "cell")}
    runs["GRU: hidden state"] = _states(_averaging_gru(), ones_TBI, "hidden")
    for axis, colour, (name, state_T) in zip(axes[0], COLOURS, runs.items(), strict=False):
        axis.plot(steps, state_T, color=colour)
        axis.set_title(name)
        axis.set_xlabel("ones read (steps)")
    axes[0][0].set_ylabel("value of the unit")
    axes[0][1].set_ylim(0, 1.05)
    return figure


def transformer() -> Any:
    """What a step costs and what a sequence carries, by how much it has read."""
    figure, axes = canvas(1, 2, height=2.9, sharex=True)
    width, contexts = 256, [2**power for power in range(17)]
    layers = {"LSTM layer": COSTS["lstm"], "Transformer layer": TRANSFORMER}
    for name, cost in layers.items():
        for axis, formula in zip(axes[0], (cost.state, cost.multiply_adds), strict=True):
            axis.plot(
                contexts, [count(formula, n_x=width, n_h=width, n_t=read) for read in contexts], label=name
            )
    axes[0][0].set_ylabel("numbers that a sequence carries")
    axes[0][1].set_ylabel("multiply-adds of the next step")
    for axis in axes[0]:
        axis.set_xscale("log", base=10)
        axis.set_yscale("log")
        axis.set_xlabel("steps read so far")
    axes[0][0].legend()
    return figure


def _states(cell: LSTM | GRU, x_TBI: Tensor, part: str) -> Tensor:
    states, state = [], cell.initial_state(1)
    with torch.no_grad():
        for x_BI in x_TBI:
            _, state = unroll(cell, x_BI.unsqueeze(0), state)
            states.append(getattr(state, part)[0, 0])
    return torch.stack(states)


def _counting_lstm() -> LSTM:
    """Forget and input gate open, and a candidate that is 1 for a one."""
    cell = LSTM(1, 1)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        for gate in ("forget", "input"):
            cell.blocks(cell.bias)[gate].fill_(20.0)
        cell.blocks(cell.weight_x)["candidate"].fill_(20.0)
    return cell


def _averaging_gru() -> GRU:
    """The same of a GRU that keeps nine tenths: what it adds, it takes from what it had."""
    cell = GRU(1, 1)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.blocks(cell.bias)["update"].fill_(2.2)
        cell.blocks(cell.weight_x)["candidate"].fill_(20.0)
    return cell

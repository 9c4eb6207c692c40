"""The tour's pictures of gradients: what vanishes, what does not, and what learning makes of it."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import LAST, load_checkpoint
from model.diagnostics.course import read_course
from model.diagnostics.flow import Flow, gradient_flow
from model.diagnostics.pictures import COLOURS, FAINT, INK, canvas
from model.diagnostics.subject import subject_of
from model.diagnostics.watch import watched
from model.initialise import initialise
from model.model_recipe import InitialiseRecipe, PlainCell, RNNCell
from model.recipe import Recipe
from model.stack import Stack
from model.tasks.tasks import load_data
from model.training import Training

STEPS, ROWS, INPUTS, UNITS = 200, 16, 8, 64
BACK = "k (steps before the loss)"
SHARE = "|dL/dC[t-k]| / |dL/dC[t]|"


def highway() -> Any:
    """How the gradient fares on its way back through networks that have learned nothing."""
    figure, axes = canvas(1, 2, height=3.2, sharex=True, sharey=True)
    for scale in (0.8, 1.0, 1.25):
        shares = _median(_flow(_rnn(scale)).total_KB)
        axes[0][0].plot(shares, label=f"{scale:g}")
    for bias in (0.0, 1.0, 3.0, 5.0):
        shares = _median(_flow(_lstm(InitialiseRecipe(forget_bias=bias))).total_KB)
        axes[0][1].plot(shares, label=f"{bias:g}: f = {_sigmoid(bias):.3f}")
    titles = ("RNN: |dL/dh[t-k]| / |dL/dh[t]|", f"LSTM: {SHARE}")
    varied = ("scale of W_h", "forget bias")
    for axis, title, what in zip(axes[0], titles, varied, strict=True):
        axis.set_title(title)
        axis.set_yscale("log")
        axis.set_ylim(1e-12, 1e3)
        axis.set_xlabel(BACK)
        axis.legend(loc="lower right", title=what)
    axes[0][0].set_ylabel("share of the gradient that is left")
    return figure


def direct_and_total() -> Any:
    """The product of the forget gates beside the gradient, as the recurrent weights grow."""
    figure, axes = canvas(1, 3, height=2.8, sharex=True, sharey=True)
    for axis, scale in zip(axes[0], (1.0, 3.0, 6.0), strict=True):
        flow = _flow(_lstm(InitialiseRecipe(forget_bias=3.0, scale=scale)))
        axis.plot(_median(flow.total_KB), label="total")
        axis.plot(_median(flow.direct_KB), label="direct: product of f")
        axis.set_title(f"recurrent weights times {scale:g}")
        axis.set_yscale("log")
        axis.set_xlabel(BACK)
    axes[0][0].set_ylabel(SHARE)
    axes[0][0].legend()
    return figure


def half_life() -> Any:
    """What a forget bias means in steps, and what chrono initialisation spreads it over."""
    figure, axes = canvas(1, 2, height=2.9)
    biases = torch.linspace(-2, 7, 200, dtype=torch.float64)
    axes[0][0].plot(biases, _half_life(biases))
    for bias in (0.0, 1.0, 3.0, 5.0):
        steps = float(_half_life(torch.tensor(bias)))
        axes[0][0].plot(bias, steps, "o", color=COLOURS[1])
        axes[0][0].annotate(
            f"{steps:.3g} step{'s' * (steps > 1.001)}", (bias, steps), (6, -10), textcoords="offset points"
        )
    axes[0][0].set_xlabel("bias of the forget gate")
    axes[0][0].set_ylabel("half-life (steps)")
    percent = torch.linspace(0, 100, 400)
    for label, recipe in (
        ("bias 1", InitialiseRecipe()),
        ("chrono, 200 steps", InitialiseRecipe(chrono=200)),
    ):
        stack = _lstm(recipe, units=400)
        (cell,) = stack.by_layer()
        steps_U = _half_life(cell.blocks(cell.bias)["forget"].detach()).sort(descending=True).values
        axes[0][1].plot(percent, steps_U, label=label)
    axes[0][1].set_xlabel("units, the longest memory first (percent)")
    axes[0][1].legend()
    for axis in axes[0]:
        axis.set_yscale("log")
    return figure


def learning() -> Any:
    """Three networks learn to add two marked numbers of 60; the gradient before and after."""
    figure, axes = canvas(1, 2, height=3.2)
    axes[0][0].axhline(1 / 6, color=FAINT, zorder=0)
    axes[0][0].text(1500, 0.185, "always answering 1", color=INK, fontsize=8.5, ha="right")
    for colour, (name, model) in zip(COLOURS, _LEARNERS.items(), strict=False):
        with TemporaryDirectory() as folder:
            course, flow = _learn(model, Path(folder))
        updates = [line["updates"] for line in course]
        axes[0][0].plot(updates, [line["validation_mse"] for line in course], color=colour, label=name)
        axes[0][1].plot(_median(flow.total_KB), color=colour, label=name)
    axes[0][0].set_xlabel("updates")
    axes[0][0].set_ylabel("held-out mean square error")
    axes[0][1].set_xlabel(BACK)
    axes[0][1].set_ylabel("share of the gradient, afterwards")
    for axis in axes[0]:
        axis.set_yscale("log")
    axes[0][1].legend()
    return figure


_LEARNERS: dict[str, dict[str, Any]] = {
    "RNN": {"cell": "rnn"},
    "LSTM, forget bias 1": {"cell": "lstm"},
    "LSTM, chrono": {"cell": "lstm", "initialise": {"chrono": 60}},
    "GRU": {"cell": "gru"},
}


def _learn(model: dict[str, Any], folder: Path) -> tuple[list[dict[str, Any]], Flow]:
    recipe = Recipe.from_document(
        {
            "task": "adding",
            "model": {"hidden": 32, "layers": 1, **model},
            "training": {
                "updates": 1500,
                "streams": 50,
                "steps": 60,
                "learning_rate": 4e-3,
                "evaluate_every": 50,
            },
        }
    )
    for _ in Training(recipe, load_data(recipe), folder).updates():
        pass
    subject = subject_of(load_checkpoint(folder / LAST), None, "a learner")
    with watched(subject.stack) as layers:
        step, loss = subject.last_loss(subject.outputs())
    return read_course(folder), gradient_flow(layers[0], step, loss)


def _flow(stack: Stack) -> Flow:
    """Of a random weighing of the last output, for white inputs."""
    x_TBI = torch.randn(STEPS, ROWS, INPUTS, dtype=torch.float64) / 4
    with watched(stack) as layers:
        y_TBH, _ = stack(x_TBI, stack.initial_state(ROWS))
    loss = (y_TBH[-1] @ torch.randn(y_TBH.shape[-1], dtype=torch.float64)).sum()
    return gradient_flow(layers[0], STEPS - 1, loss)


def _rnn(scale: float) -> Stack:
    stack = Stack(INPUTS, UNITS, 1, cell=RNNCell(kind="rnn"))
    initialise(next(stack.by_layer()), InitialiseRecipe(scale=scale))
    return stack.double()


def _lstm(recipe: InitialiseRecipe, units: int = UNITS) -> Stack:
    stack = Stack(INPUTS, units, 1, cell=PlainCell(kind="lstm"))
    initialise(next(stack.by_layer()), recipe)
    return stack.double()


def _half_life(bias: Tensor) -> Tensor:
    return math.log(2) / -torch.nn.functional.logsigmoid(bias)


def _sigmoid(bias: float) -> float:
    return 1 / (1 + math.exp(-bias))


def _median(shares_KB: Tensor) -> Tensor:
    return shares_KB.nanmedian(dim=1).values

"""The chapters on gradients."""

from typing import Any

import torch
from torch import Tensor

from model.diagnostics.chapter import Chapter
from model.diagnostics.flow import Flow
from model.diagnostics.gradients import SHARED, gradient_norms
from model.diagnostics.pictures import COLOURS, INK, side_by_side, svg
from model.diagnostics.watch import Layer


def norms_chapter(layers: list[Layer], loss: Tensor) -> Chapter:
    """The gradient of the mean loss, a gate and a matrix at a time."""
    found = gradient_norms(layers, loss)
    figure, axes = side_by_side(len(layers), height=2.6, sharey=True)
    for k, norms in enumerate(found):
        gates = list(norms["weight_x"])
        for j, parameter in enumerate(SHARED):
            places = torch.arange(len(gates)) + 0.27 * (j - 1)
            label = ("of the input", "of the hidden state", "bias")[j]
            axes[k].bar(places, [norms[parameter][gate] for gate in gates], 0.25, label=label)
        axes[k].set_xticks(range(len(gates)), gates)
        axes[k].set_title(f"layer {k}")
        axes[k].set_yscale("log")
        axes[k].grid(axis="x", visible=False)
    axes[0].set_ylabel("norm of the gradient (nats)")
    axes[-1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    return Chapter(
        "gradient_norms",
        "Gradient of each gate",
        "A gate whose bars are orders of magnitude below the others' hardly learns any more.",
        {f"layer{k}": norms for k, norms in enumerate(found)},
        svg(figure),
        "Frobenius norms of the gradient of the mean loss over the sequences, one block of rows for each gate.",
    )


def flow_chapter(own: list[Flow], beside: list[Flow], name: str) -> Chapter:
    """How far back the loss of the last step reaches, beside another network.

    Args:
        own: Of the model.
        beside: Of the other; of its last layer, the total is drawn.
        name: What that one is.
    """
    figure, axes = side_by_side(len(own), height=3.0, sharey=True)
    numbers: dict[str, Any] = {"beside": {"name": name, "total": _median(beside[-1].total_KB).tolist()}}
    for k, flow in enumerate(own):
        axis, back = axes[k], torch.arange(len(flow.total_KB))
        direct, total = _median(flow.direct_KB), _median(flow.total_KB)
        low, high = (flow.total_KB.nanquantile(share, dim=1) for share in (0.1, 0.9))
        axis.fill_between(back, low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
        axis.plot(back, total, color=COLOURS[0], label="total")
        if direct[1:].any():  # nothing is kept without gates
            axis.plot(back, direct, color=COLOURS[1], label="direct: product of f")
        axis.plot(back, _median(beside[-1].total_KB), color=INK, linestyle=":", label=name)
        axis.set_title(f"layer {k}")
        axis.set_xlabel("k (steps before the loss)")
        numbers[f"layer{k}"] = {"direct": direct.tolist(), "total": total.tolist()}
    axes[0].set_yscale("log")
    axes[0].set_ylim(bottom=max(1e-12, axes[0].get_ylim()[0]))
    axes[0].set_ylabel("|dL/dC[t-k]| / |dL/dC[t]|")
    axes[-1].legend()
    return Chapter(
        "gradient_flow",
        "How far back the loss reaches",
        "A line that stays level carries the error back, a straight fall is exponential forgetting; where the total leaves the "
        "direct line, gradients travel through the gates and not along the cell.",
        numbers,
        svg(figure),
        "Medians over the sequences of the gradient of the last step's loss, as shares of the gradient at k = 0; shaded: "
        "one sequence in ten below, one in ten above. Direct holds the gates, dL/dC[t] times the product of f, and is the "
        "formula of most textbooks; the total is what learning gets. The product of f decays as well, unless f = 1.",
    )


def _median(shares_KB: Tensor) -> Tensor:
    return shares_KB.nanmedian(dim=1).values

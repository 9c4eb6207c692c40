"""The formulas of what a cell costs, against real cells and PyTorch's own count of their work."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from model.cached_attention import Cache, cached_step
from model.cells import CELLS
from model.cells.child_sum import ChildSumLSTM
from model.cells.gated import Gated
from model.cells.lstm import LSTMState
from model.costs import COSTS, TRANSFORMER, count

SIZES = {"n_x": 12, "n_h": 8, "n_p": 3, "n_m": 5, "n_k": 4}
BATCH = 7


def made(name: str, n_x: int, n_h: int) -> Gated[Any, Any]:
    special: dict[str, Callable[[], Gated[Any, Any]]] = {
        "projected": lambda: CELLS["projected"](n_x, n_h, projection=SIZES["n_p"]),
        "multiplicative": lambda: CELLS["multiplicative"](n_x, n_h, intermediate=SIZES["n_m"]),
        "gru, reset before": lambda: CELLS["gru"](n_x, n_h, reset_after=False),
        "child-sum, a node": lambda: ChildSumLSTM(n_x, n_h),
    }
    return special[name]() if name in special else CELLS[name](n_x, n_h)


def sizes(name: str) -> dict[str, int]:
    return SIZES | ({"n_x": SIZES["n_h"]} if COSTS[name].square else {})


def products(run: Callable[[], object]) -> int:
    """The multiply-adds that PyTorch counts."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    flop = counter.get_total_flops()
    assert flop % 2 == 0
    return int(flop // 2)


@pytest.mark.parametrize("name", COSTS)
def test_a_cell_costs_what_its_formulas_say(name: str) -> None:
    expected = sizes(name)
    cell = made(name, expected["n_x"], expected["n_h"])
    state = cell.initial_state(BATCH)
    if name == "child-sum, a node":
        state = LSTMState(*(torch.zeros(BATCH, SIZES["n_k"], SIZES["n_h"]) for _ in state))
    x = torch.randn(BATCH, expected["n_x"])
    _, after = cell.step(x, state)

    cost = COSTS[name]
    assert count(cost.parameters, **expected) == sum(parameter.numel() for parameter in cell.parameters())
    assert count(cost.state, **expected) == sum(part.shape[-1] for part in after)
    assert BATCH * count(cost.multiply_adds, **expected) == products(lambda: cell.step(x, state))


def test_every_cell_has_its_costs() -> None:
    assert {name.split(",")[0] for name in COSTS} == {*CELLS, "child-sum"}


def transformer(width: int) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        width, 2, 4 * width, dropout=0.0, norm_first=True, batch_first=True
    ).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def test_a_cached_step_is_a_row_of_torch_s_causal_layer() -> None:
    layer, x_BTD = transformer(8), torch.randn(3, 5, 8, dtype=torch.float64)
    causal = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    expected = layer(x_BTD, src_mask=causal)
    cache = Cache(*torch.full((2, 3, 5, 8), torch.nan, dtype=torch.float64))
    with torch.no_grad():
        steps = [cached_step(layer, x_BTD[:, t], cache, t) for t in range(5)]
    assert_close(torch.stack(steps, dim=1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("context", [1, 20])
def test_a_transformer_layer_costs_what_its_formulas_say(context: int) -> None:
    layer, expected = transformer(8), {"n_h": 8, "n_t": context}
    cache = Cache(*torch.zeros(2, BATCH, context, 8, dtype=torch.float64))
    x = torch.randn(BATCH, 8, dtype=torch.float64)
    assert count(TRANSFORMER.parameters, **expected) == sum(p.numel() for p in layer.parameters())
    assert BATCH * count(TRANSFORMER.state, **expected) == sum(part.numel() for part in cache)
    with sdpa_kernel(SDPBackend.MATH):  # in the fused kernels nothing is counted
        found = products(lambda: cached_step(layer, x, cache, context - 1))
    assert BATCH * count(TRANSFORMER.multiply_adds, **expected) == found

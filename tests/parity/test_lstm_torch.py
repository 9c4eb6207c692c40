"""Our LSTM against PyTorch's, and every way of running it against every other: outputs, states, gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from model.cells.lstm import LSTM, LSTMState
from model.over_time import fused, unroll
from model.stack import Stack

Run = Callable[[LSTM, Tensor, LSTMState], tuple[Tensor, LSTMState]]

STEPS, BATCH, INPUT, HIDDEN = 7, 3, 5, 4
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64: the order of additions is all that may differ
SINGLE = {"rtol": 1e-5, "atol": 1e-6}  # float32: some hundred additions in another order


@pytest.fixture
def cell() -> LSTM:
    torch.manual_seed(0)
    return LSTM(INPUT, HIDDEN).double()


def random_state(batch: int = BATCH) -> LSTMState:
    hidden, cell = torch.randn(2, batch, HIDDEN, dtype=torch.float64)
    return LSTMState(hidden.requires_grad_(), cell.requires_grad_())


def of_torch(stack: Stack) -> nn.LSTM:
    """PyTorch's LSTM with our weights; its second bias is zero."""
    theirs = nn.LSTM(INPUT, HIDDEN, num_layers=len(stack.cells)).double()
    weights: dict[str, Tensor] = {}
    for layer, cell in enumerate(stack.cells):
        weights[f"weight_ih_l{layer}"] = cell.weight_x
        weights[f"weight_hh_l{layer}"] = cell.weight_h
        weights[f"bias_ih_l{layer}"] = cell.bias
        weights[f"bias_hh_l{layer}"] = torch.zeros_like(cell.bias)
    theirs.load_state_dict(weights)
    return theirs


def gradients(result: tuple[Tensor, LSTMState], of: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a scalar that weighs every output and both parts of the last state differently."""
    output, last = result
    parts = torch.cat([part.flatten() for part in (output, last.hidden, last.cell)])
    scalar = (parts * torch.linspace(1, 2, len(parts))).sum()
    return dict(zip(of, torch.autograd.grad(scalar, list(of.values())), strict=True))


def variables(cell: LSTM, x: Tensor, state: LSTMState) -> dict[str, Tensor]:
    return {"x": x, **state._asdict(), **dict(cell.named_parameters())}


def test_a_step_is_a_step_of_torch_s_cell(cell: LSTM) -> None:
    theirs = nn.LSTMCell(INPUT, HIDDEN).double()
    theirs.load_state_dict(
        {
            "weight_ih": cell.weight_x,
            "weight_hh": cell.weight_h,
            "bias_ih": cell.bias,
            "bias_hh": torch.zeros_like(cell.bias),
        }
    )
    x, state = torch.randn(BATCH, INPUT, dtype=torch.float64), random_state()
    output, after = cell.step(x, state)
    hidden, last_cell = theirs(x, tuple(state))
    assert_close(output, hidden, **EXACT)
    assert_close(after, LSTMState(hidden, last_cell), **EXACT)


@pytest.mark.parametrize("run", [unroll, fused])
def test_over_time_it_is_torch_s_lstm_with_all_gradients(run: Run) -> None:
    torch.manual_seed(0)
    stack = Stack(INPUT, HIDDEN, layers=1).double()
    cell, theirs = stack.cells[0], of_torch(stack)
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64, requires_grad=True), random_state()

    found = run(cell, x, state)
    output, (hidden, last_cell) = theirs(x, (state.hidden[None], state.cell[None]))
    expected = output, LSTMState(hidden[0], last_cell[0])
    assert_close(found, expected, **EXACT)

    names = {"weight_x": theirs.weight_ih_l0, "weight_h": theirs.weight_hh_l0, "bias": theirs.bias_ih_l0}
    theirs_by_our_names = {"x": x, **state._asdict(), **names}
    assert_close(
        gradients(found, variables(cell, x, state)), gradients(expected, theirs_by_our_names), **EXACT
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, EXACT), (torch.float32, SINGLE)])
def test_the_fused_kernel_is_the_loop_with_all_gradients(
    dtype: torch.dtype, tolerance: dict[str, float], cell: LSTM
) -> None:
    cell = cell.to(dtype)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=dtype, requires_grad=True)
    state = LSTMState(*(segment.detach().to(dtype).requires_grad_() for segment in random_state()))
    fast, slow, of = fused(cell, x, state), unroll(cell, x, state), variables(cell, x, state)
    assert_close(fast, slow, **tolerance)
    assert_close(gradients(fast, of), gradients(slow, of), **tolerance)


def test_the_fused_kernel_gives_no_other_result_where_no_gradient_is_asked_for(cell: LSTM) -> None:
    cell = cell.float()
    x, state = torch.randn(STEPS, BATCH, INPUT), cell.initial_state(BATCH)
    with torch.no_grad():
        without = fused(cell, x, state)
    assert_close(fused(cell, x, state), without, **SINGLE)


def test_a_stack_is_torch_s_stack() -> None:
    torch.manual_seed(0)
    stack = Stack(INPUT, HIDDEN, layers=3).double()
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), tuple(random_state() for _ in range(3))
    output, last = stack(x, state)
    stacked = tuple(torch.stack(segment) for segment in zip(*state, strict=True))
    expected, (hidden, cell) = of_torch(stack)(x, stacked)
    assert_close(output, expected, **EXACT)
    assert_close(last, tuple(map(LSTMState, hidden, cell)), **EXACT)


def test_whole_is_chunk_by_chunk() -> None:
    torch.manual_seed(0)
    stack = Stack(INPUT, HIDDEN, layers=2).double()
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), stack.initial_state(BATCH)
    whole, last = stack(x, state)
    chunks = []
    for chunk in x.split([1, 4, 2]):
        output, state = stack(chunk, state)
        chunks.append(output)
    assert_close(torch.cat(chunks), whole, **EXACT)
    assert_close(state, last, **EXACT)


def test_a_row_of_a_batch_is_the_row_alone() -> None:
    torch.manual_seed(0)
    stack = Stack(INPUT, HIDDEN, layers=2).double()
    x, state = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64), tuple(random_state() for _ in range(2))
    output, last = stack(x, state)
    alone = tuple(LSTMState(*(segment[1:2] for segment in layer)) for layer in state)
    row, row_last = stack(x[:, 1:2], alone)
    assert_close(row, output[:, 1:2], **EXACT)
    assert_close(row_last, tuple(LSTMState(*(s[1:2] for s in layer)) for layer in last), **EXACT)

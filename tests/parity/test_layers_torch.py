"""Layers over our cells against PyTorch's modules: stacked, bidirectional, packed; and every way of running them."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from model.bidirectional import Bidirectional, turned
from model.cells.gated import Gated
from model.layer import Conditions, run_layer
from model.model_recipe import DropoutRecipe, ModelRecipe
from model.over_time import fused, has_kernel, unroll
from model.stack import Stack
from tests.cells import SMALL, drawn, gradients, random_inputs, random_state, small, variables

STEPS, BATCH, INPUT, HIDDEN, LAYERS = 7, 3, 5, 4, 3
LENGTHS = torch.tensor([3, 7, 1])
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64: the order of additions is all that may differ
SINGLE = {"rtol": 1e-4, "atol": 1e-5}  # float32: some hundred additions in another order

MODULES: dict[str, tuple[Any, Callable[..., nn.RNNBase]]] = {
    "lstm": ("lstm", nn.LSTM),
    "projected": ({"kind": "projected", "projection": 3}, lambda *a, **k: nn.LSTM(*a, proj_size=3, **k)),
    "gru": ("gru", nn.GRU),
    "rnn": ("rnn", nn.RNN),
    "rnn, relu": (
        {"kind": "rnn", "nonlinearity": "relu"},
        lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    ),
}


def recipe(cell: Any) -> Any:
    sizes = {"embedding": INPUT, "hidden": HIDDEN, "layers": LAYERS, "cell": cell}
    return ModelRecipe.model_validate(sizes).cell


def their_weights(cell: Gated[Any, Any], suffix: str) -> dict[str, Tensor]:
    """One of our cells under PyTorch's names."""
    second = torch.zeros_like(cell.bias)
    if getattr(cell, "bias_h", None) is not None:
        second[-HIDDEN:] = cell.bias_h
    weights = {
        "weight_ih": cell.weight_x,
        "weight_hh": cell.weight_h,
        "bias_ih": cell.bias,
        "bias_hh": second,
    }
    if hasattr(cell, "weight_projection"):
        weights["weight_hr"] = cell.weight_projection
    return {f"{name}_l{suffix}": weight.detach() for name, weight in weights.items()}


def their_state(states: Iterable[Any]) -> Any:
    parts = tuple(torch.stack(part) for part in zip(*states, strict=True))
    return parts if len(parts) > 1 else parts[0]


def our_states(last: Any, like: Any) -> list[Any]:
    parts = last if isinstance(last, tuple) else (last,)
    return [type(like)(*rows) for rows in zip(*parts, strict=True)]


@pytest.mark.parametrize("name", MODULES)
def test_a_stack_is_torch_s(name: str) -> None:
    torch.manual_seed(0)
    kind, module = MODULES[name]
    stack = Stack(INPUT, HIDDEN, LAYERS, cell=recipe(kind)).double()
    for cell in stack.by_layer():
        drawn(cell)
    theirs = module(INPUT, HIDDEN, num_layers=LAYERS).double()
    theirs.load_state_dict(
        {
            key: w
            for layer, cell in enumerate(stack.by_layer())
            for key, w in their_weights(cell, str(layer)).items()
        }
    )
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64, requires_grad=True)
    state = tuple(random_state(cell, BATCH) for cell in stack.by_layer())
    output, last = stack(x, state)
    expected, their_last = theirs(x, their_state(state))
    assert_close(output, expected, **EXACT)
    assert_close(list(last), our_states(their_last, state[0]), **EXACT)
    (ours,), (wanted,) = (torch.autograd.grad(y.square().sum(), [x]) for y in (output, expected))
    assert_close(ours, wanted, **EXACT)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_bidirectional_layers_are_torch_s_packed_or_not(name: str, ragged: bool) -> None:
    torch.manual_seed(0)
    kind, module = MODULES[name]
    ours = Bidirectional(INPUT, HIDDEN, LAYERS, cell=recipe(kind)).double()
    theirs = module(INPUT, HIDDEN, num_layers=LAYERS, bidirectional=True).double()
    weights = {}
    for layer, pair in enumerate(ours.by_layer()):
        for cell, direction in zip(pair, ("", "_reverse"), strict=True):
            weights |= their_weights(drawn(cell), f"{layer}{direction}")
    theirs.load_state_dict(weights)
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64, requires_grad=True)
    state = tuple((random_state(one, BATCH), random_state(other, BATCH)) for one, other in ours.by_layer())
    flat = their_state([one for pair in state for one in pair])
    lengths = LENGTHS if ragged else None

    output, last = ours(x, lengths, state)
    if ragged:
        packed, their_last = theirs(pack_padded_sequence(x, LENGTHS, enforce_sorted=False), flat)
        expected, _ = pad_packed_sequence(packed, total_length=STEPS)
    else:
        expected, their_last = theirs(x, flat)
    assert_close(output, expected, **EXACT)
    assert_close([one for pair in last for one in pair], our_states(their_last, state[0][0]), **EXACT)
    (found,), (wanted,) = (torch.autograd.grad(y.square().sum(), [x]) for y in (output, expected))
    assert_close(found, wanted, **EXACT)


@pytest.mark.parametrize("name", ["highway-depth", "peephole", "multiplicative", "coupled"])
def test_a_row_of_a_ragged_batch_is_the_row_alone(name: str) -> None:
    torch.manual_seed(0)
    layers = Bidirectional(INPUT, HIDDEN, 2, cell=recipe(name)).double()
    x = torch.randn(STEPS, BATCH, INPUT, dtype=torch.float64)
    output, last = layers(x, LENGTHS)
    assert output.shape == (STEPS, BATCH, layers.width)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, end = layers(x[:length, row : row + 1])
        assert_close(output[:length, row : row + 1], alone, **EXACT)
        assert not output[length:, row].any()
        for pair, wanted in zip(last, end, strict=True):
            rows = [type(one)(*(part[row : row + 1] for part in one)) for one in pair]
            assert_close(rows, list(wanted), **EXACT)


def test_dropout_acts_on_bidirectional_layers_while_training_alone() -> None:
    layers = Bidirectional(INPUT, HIDDEN, 2, conditions=Conditions(dropout=DropoutRecipe(hidden=0.5)))
    x = torch.randn(STEPS, BATCH, INPUT)
    assert not torch.equal(layers(x)[0], layers(x)[0])
    layers.eval()
    assert torch.equal(layers(x)[0], layers(x)[0])


def test_turning_twice_changes_nothing_and_leaves_what_lies_beyond_the_end() -> None:
    x = torch.arange(21.0).view(STEPS, BATCH, 1)
    once = turned(x, LENGTHS)
    assert_close(turned(once, LENGTHS), x)
    assert once[:, 0, 0].tolist() == [6, 3, 0, 9, 12, 15, 18]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", [name for name in SMALL if has_kernel(small(name))])
def test_the_kernel_is_the_loop_with_all_gradients(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    cell, tolerance = small(name).to(dtype), EXACT if dtype is torch.float64 else SINGLE
    x = random_inputs(cell, STEPS, BATCH).to(dtype)
    state = random_state(cell, BATCH)
    fast, slow, of = fused(cell, x, state), unroll(cell, x, state), variables(cell, x, state)
    assert_close(fast, slow, **tolerance)
    assert_close(gradients(fast, of), gradients(slow, of), **tolerance)
    with torch.no_grad():
        assert_close(fused(cell, x, state), slow, **tolerance)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_the_kernel_of_a_projected_lstm_is_the_loop_too() -> None:
    """It is taken on CUDA only; here it is PyTorch's own loop."""
    torch.manual_seed(0)
    cell = small("projected")
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    assert_close(fused(cell, x, state), unroll(cell, x, state), **EXACT)
    assert not has_kernel(cell)


def test_kernels_are_taken_where_they_are_exact_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(
        "model.layer.fused", lambda cell, x, state: taken.append(cell) or fused(cell, x, state)
    )
    exact, loops = (
        Conditions(dropout=DropoutRecipe(input=0.5, weight=0.5)),
        {
            "hidden": Conditions(dropout=DropoutRecipe(hidden=0.5)),
            "untied": Conditions(dropout=DropoutRecipe(hidden=0.5, untied=True)),
        },
    )
    for name in SMALL:
        cell = small(name)
        x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
        for conditions in loops.values():
            run_layer(cell, x, state, conditions, layer=0, training=True)
        run_layer(cell, x, state, Conditions(), layer=0, training=True, lengths_B=LENGTHS)
        assert not taken
        run_layer(cell, x, state, exact, layer=0, training=True)
        assert len(taken) == (name in ("lstm", "gru", "rnn", "rnn, relu"))
        taken.clear()

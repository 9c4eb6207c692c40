"""Rules that hold for every cell."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from model.cells import CELLS
from model.cells.gated import CellError
from model.over_time import unroll
from tests.cells import HIDDEN, INPUT, SMALL, gradients, random_inputs, random_state, small

STEPS, BATCH = 6, 3
EXACT = {"rtol": 1e-10, "atol": 1e-10}

every_cell = pytest.mark.parametrize("name", SMALL)


def test_every_cell_of_the_table_is_held_to_these_rules() -> None:
    assert {name.split(",")[0] for name in SMALL} == CELLS.keys()


@every_cell
def test_the_state_is_named_starts_at_zero_and_holds_what_is_handed_on(name: str) -> None:
    cell = small(name)
    start = cell.initial_state(BATCH)
    assert start._fields[0] == "hidden"
    assert start.hidden.shape == (BATCH, cell.hidden_size)
    assert all(segment.dtype == torch.float64 and not segment.any() for segment in start)
    output, after = cell.step(random_inputs(cell, BATCH), start)
    assert output is after.hidden
    assert [part.shape for part in after] == [part.shape for part in start]


@every_cell
def test_whole_is_chunk_by_chunk(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    whole, last = unroll(cell, x, state)
    chunks = []
    for chunk in x.split([1, 3, 2]):
        output, state = unroll(cell, chunk, state)
        chunks.append(output)
    assert_close(torch.cat(chunks), whole, **EXACT)
    assert_close(state, last, **EXACT)


@every_cell
def test_a_row_of_a_batch_is_the_row_alone(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    output, last = unroll(cell, x, state)
    row, row_last = unroll(cell, x[:, 1:2], type(state)(*(segment[1:2] for segment in state)))
    assert_close(row, output[:, 1:2], **EXACT)
    assert_close(row_last, type(last)(*(segment[1:2] for segment in last)), **EXACT)


@every_cell
def test_a_step_leaves_the_state_before_it_alone(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    before = random_state(cell, BATCH)
    copy = [segment.clone() for segment in before]
    cell.step(random_inputs(cell, BATCH), before)
    assert all(torch.equal(segment, kept) for segment, kept in zip(before, copy, strict=True))


@every_cell
def test_the_gates_see_the_hidden_state_they_are_given_and_no_other(name: str) -> None:
    torch.manual_seed(0)
    cell = small(name)
    state = random_state(cell, BATCH)
    projected, masked = cell.inputs(random_inputs(cell, BATCH)), torch.zeros_like(state.hidden)
    gates = cell.gates(projected, masked, state)
    elsewhere = state._replace(hidden=torch.randn_like(masked))
    assert_close(gates, cell.gates(projected, masked, elsewhere), rtol=0, atol=0)
    assert not torch.equal(gates[0], cell.gates(projected, state.hidden, state)[0])


@every_cell
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_saturated_inputs_give_finite_values_and_gradients(name: str, size: float) -> None:
    torch.manual_seed(0)
    cell = SMALL[name]()
    x = torch.full((STEPS, BATCH, cell.input_size), size, requires_grad=True)
    state = cell.initial_state(BATCH)
    output, last = unroll(cell, x, state)
    slopes = gradients((output, last), {"x": x, **dict(cell.named_parameters())})
    assert all(torch.isfinite(values).all() for values in (output, *last, *slopes.values()))


@every_cell
def test_a_run_of_bfloat16_products_keeps_the_state_and_the_gates_in_float32(name: str) -> None:
    torch.manual_seed(0)
    cell = SMALL[name]()
    state = cell.initial_state(BATCH)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        projected = cell.inputs(torch.randn(BATCH, cell.input_size))
        gates = cell.gates(projected, state.hidden, state)
        output, after = cell.update(gates, state)
    assert {part.dtype for part in (*gates, output, *after)} == {torch.float32}


@every_cell
def test_a_cell_makes_nothing_beside_the_device_of_its_weights(name: str) -> None:
    with torch.device("meta"):
        cell = SMALL[name]()
    x = torch.randn(STEPS, BATCH, cell.input_size, device="meta")
    output, last = unroll(cell, x, cell.initial_state(BATCH))  # where devices mix, torch raises
    assert {part.device.type for part in (output, *last)} == {"meta"}
    assert output.shape == (STEPS, BATCH, cell.hidden_size)


@every_cell
def test_the_gates_have_blocks_of_the_cell_s_own_width(name: str) -> None:
    cell = small(name)
    for parameter in (cell.weight_x, cell.weight_h, cell.bias):
        blocks = cell.blocks(parameter)
        assert tuple(blocks) == cell.gate_names
        assert {len(block) for block in blocks.values()} == {cell.units}
        assert_close(torch.cat(list(blocks.values())), parameter)
    with torch.no_grad():
        cell.blocks(cell.bias)[cell.gate_names[-1]].fill_(7.0)
    assert (cell.bias[-cell.units :] == 7).all()


@every_cell
def test_a_new_cell_is_open_to_remember_and_else_unbiased(name: str) -> None:
    cell = SMALL[name]()
    for gate, bias in cell.blocks(cell.bias).items():
        assert (bias == (gate == "forget")).all()
    assert not any(p.any() for own, p in cell.named_parameters() if p.ndim == 1 and own != "bias")


@every_cell
def test_a_new_cell_has_orthogonal_blocks_where_it_reads_hidden_values_and_xavier_blocks_where_it_reads_inputs(
    name: str,
) -> None:
    torch.manual_seed(0)
    cell = SMALL[name]()
    for own, matrix in cell.named_parameters():
        if matrix.ndim < 2:
            continue
        blocks = cell.blocks(matrix).values() if own in ("weight_x", "weight_h") else [matrix]
        for block in (block.detach() for block in blocks):
            rows, columns = block.shape
            if own in ("weight_x", "weight_mx", "weight_carry"):
                assert 0 < block.abs().max() <= (6 / (rows + columns)) ** 0.5
            else:
                narrow = block if rows <= columns else block.T
                assert_close(narrow @ narrow.T, torch.eye(len(narrow)))


@every_cell
def test_two_cells_share_nothing(name: str) -> None:
    torch.manual_seed(0)
    one, other = small(name), small(name)
    x, state = random_inputs(one, STEPS, BATCH), random_state(one, BATCH)
    before, _ = unroll(other, x, state)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.fill_(3.0)
    assert torch.equal(unroll(other, x, state)[0], before)
    unroll(one, x, state)[0].sum().backward()
    assert all(parameter.grad is None for parameter in other.parameters())


def test_a_new_peephole_cell_is_the_lstm() -> None:
    torch.manual_seed(0)
    peephole, lstm = CELLS["peephole"](INPUT, HIDDEN), CELLS["lstm"](INPUT, HIDDEN)
    lstm.load_state_dict(peephole.state_dict(), strict=False)
    x = torch.randn(STEPS, BATCH, INPUT)
    assert_close(
        unroll(peephole, x, peephole.initial_state(BATCH)), unroll(lstm, x, lstm.initial_state(BATCH))
    )


@pytest.mark.parametrize("name", ["highway-time", "highway-depth"])
def test_a_highway_whose_transform_gate_is_open_is_the_lstm_and_closed_it_lets_everything_pass(
    name: str,
) -> None:
    torch.manual_seed(0)
    cell = small(name)
    lstm = CELLS["lstm"](INPUT, HIDDEN).double()
    with torch.no_grad():
        for own, parameter in lstm.named_parameters():
            parameter.copy_(getattr(cell, own)[: 4 * HIDDEN])
    x, state = random_inputs(cell, STEPS, BATCH), random_state(cell, BATCH)
    transform = cell.blocks(cell.bias)["transform"]
    nn.init.constant_(transform, 1e4)
    assert_close(unroll(cell, x, state), unroll(lstm, x, state), **EXACT)
    nn.init.constant_(transform, -1e4)
    passing = state.hidden.expand(STEPS, -1, -1) if name == "highway-time" else x @ cell.weight_carry.T
    assert_close(unroll(cell, x, state)[0], passing, **EXACT)


def test_sizes_that_a_product_cannot_have_are_told() -> None:
    with pytest.raises(CellError, match="expected as many inputs as hidden units, got 5 and 4"):
        CELLS["multiplicative-brief"](5, 4)


def test_a_nonlinearity_that_is_none_is_told() -> None:
    with pytest.raises(CellError, match="expected the nonlinearity tanh or relu, got 'sine'"):
        CELLS["rnn"](5, 4, nonlinearity="sine")

"""Layers of cells: where dropout acts and where it does not."""

import pytest
import torch
from torch.testing import assert_close

from model.over_time import unroll
from model.stack import Stack


def run(stack: Stack) -> torch.Tensor:
    x = torch.ones(3, 2, 4)
    output, _ = stack(x, stack.initial_state(2))
    return output


def test_each_layer_reads_the_one_below() -> None:
    stack = Stack(4, 6, layers=2).eval()
    below, _ = unroll(stack.cells[0], torch.ones(3, 2, 4), stack.cells[0].initial_state(2))
    above, _ = unroll(stack.cells[1], below, stack.cells[1].initial_state(2))
    assert_close(run(stack), above)


def test_dropout_acts_between_layers_while_training() -> None:
    stack = Stack(4, 6, layers=2, dropout=0.5)
    assert not torch.equal(run(stack), run(stack))


def test_nothing_is_dropped_after_the_last_layer_nor_before_the_first() -> None:
    stack = Stack(4, 6, layers=1, dropout=0.9)
    assert torch.equal(run(stack), run(stack))


def test_nothing_is_dropped_in_evaluation() -> None:
    stack = Stack(4, 6, layers=2, dropout=0.5).eval()
    assert torch.equal(run(stack), run(stack))


def test_a_state_of_too_few_layers_is_an_error() -> None:
    stack = Stack(4, 6, layers=2)
    with pytest.raises(ValueError, match="shorter"):
        stack(torch.ones(3, 2, 4), stack.initial_state(2)[:1])


def test_the_state_comes_back_as_float32_where_products_are_bfloat16() -> None:
    stack = Stack(4, 6, layers=2)
    with torch.autocast("cpu", torch.bfloat16):
        _, state = stack(torch.ones(3, 2, 4), stack.initial_state(2))
    assert {segment.dtype for layer in state for segment in layer} == {torch.float32}

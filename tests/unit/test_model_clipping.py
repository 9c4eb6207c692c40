"""Bounds on a gradient, against PyTorch's and by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from torch.testing import assert_close

from model.clipping import clip
from model.training_recipe import ClipBy


def parameters(*gradients: list[float]) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return made


def clipped(limit: float, by: ClipBy, *gradients: list[float]) -> list[torch.Tensor]:
    made = parameters(*gradients)
    clip(made, limit, by, get_total_norm([one.grad for one in made if one.grad is not None]))
    return [one.grad for one in made if one.grad is not None]


def test_the_global_norm_keeps_the_direction_of_all_tensors_together() -> None:
    first, second = clipped(6.5, "norm", [3.0, 4.0], [12.0])  # norm 13
    assert_close(first, torch.tensor([1.5, 2.0]))
    assert_close(second, torch.tensor([6.0]))


def test_the_norm_of_a_tensor_does_not_see_the_others() -> None:
    first, second = clipped(6.5, "tensor", [3.0, 4.0], [12.0])  # norms 5 and 12
    assert_close(first, torch.tensor([3.0, 4.0]), rtol=0, atol=0)
    assert_close(second, torch.tensor([6.5]))


def test_values_are_clamped_one_by_one() -> None:
    first, second = clipped(3.5, "value", [3.0, -4.0], [12.0])
    assert_close(first, torch.tensor([3.0, -3.5]), rtol=0, atol=0)
    assert_close(second, torch.tensor([3.5]), rtol=0, atol=0)


@pytest.mark.parametrize("by", ["norm", "tensor", "value"])
def test_what_is_within_the_bound_is_left_alone(by: ClipBy) -> None:
    first, second = clipped(13.1, by, [3.0, 4.0], [12.0])
    assert_close([first, second], [torch.tensor([3.0, 4.0]), torch.tensor([12.0])], rtol=0, atol=0)


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_it_is_bit_for_bit_what_torch_does(limit: float) -> None:
    torch.manual_seed(0)
    gradients = [(torch.randn(n) * 10).tolist() for n in (7, 1, 33)]
    for by, theirs in (("norm", clip_grad_norm_), ("value", clip_grad_value_)):
        expected = parameters(*gradients)
        theirs(expected, limit)
        assert_close(clipped(limit, by, *gradients), [one.grad for one in expected], rtol=0, atol=0)


def test_no_tensor_is_longer_than_the_bound_after_clipping_by_tensor() -> None:
    torch.manual_seed(0)
    gradients = [(torch.randn(n) * 10).tolist() for n in (7, 1, 33)]
    for before, after in zip(gradients, clipped(2.0, "tensor", *gradients), strict=True):
        assert float(after.norm()) == pytest.approx(min(2.0, math.hypot(*before)), rel=1e-5)

"""docs/cells.md, held against the code."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from model.cells import CELLS
from model.costs import COSTS, TRANSFORMER

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cells.md").read_text()
COST_TABLE = PAGE.split("## What they cost")[1].split("\n## ")[0]
FORMS = PAGE.split("## In ONNX")[1]


def rows(table: str) -> dict[str, list[str]]:
    """The cells of each row by that of the first column, without backticks."""
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    return {row[0].strip(" `"): [cell.strip(" `") for cell in row[1:]] for row in lines[1:]}


def test_the_table_of_costs_has_the_formulas_of_the_code_and_no_others() -> None:
    table = rows(COST_TABLE)
    expected = COSTS | {"a Transformer layer": TRANSFORMER}
    assert table == {
        name: [cost.parameters, cost.multiply_adds, cost.state] for name, cost in expected.items()
    }


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_has_a_section_with_its_equations_its_tests_and_its_form(name: str) -> None:
    (section,) = [part for part in PAGE.split("\n## ") if f"· `{name}`" in part.splitlines()[0]]
    assert section.count("```") == 2
    assert "h_t = " in section
    assert "Held against: " in section
    assert name in rows(FORMS)


def test_files_that_are_linked_to_exist() -> None:
    links = re.findall(r"\]\(\.\./([^)]+)\)", PAGE)
    assert links
    assert all((Path(__file__).resolve().parents[2] / link).exists() for link in links)


def test_a_forget_bias_of_one_is_a_half_life_of_two_steps() -> None:
    forget = 1 / (1 + math.exp(-1))
    text = " ".join(PAGE.split())
    assert f"sigmoid(1) = {forget:.2f} is a half-life of {math.log(2) / -math.log(forget):.1f} steps" in text
    assert f"i = {1 - forget:.2f}" in text


def test_tanh_made_of_a_sigmoid_is_less_exact_for_small_values() -> None:
    x = torch.logspace(-6, -3, 50)
    exact = np.tanh(x.double().numpy())
    error = {
        name: np.abs(values.double().numpy() / exact - 1).max()
        for name, values in {"tanh": torch.tanh(x), "sigmoid": 2 * torch.sigmoid(2 * x) - 1}.items()
    }
    assert error["tanh"] < 1e-6
    assert error["sigmoid"] > 1e-3


def test_clipping_before_a_sigmoid_takes_the_gradient_away_and_is_not_needed() -> None:
    x = torch.tensor([-60.0, -1e4, 1e4], requires_grad=True)
    (slope,) = torch.autograd.grad(torch.sigmoid(x).sum(), x)
    (clipped,) = torch.autograd.grad(torch.sigmoid(x.clamp(-50, 50)).sum(), x)
    assert torch.isfinite(torch.sigmoid(x)).all()
    assert torch.isfinite(slope).all()
    assert slope[0] > 0
    assert clipped[0] == 0

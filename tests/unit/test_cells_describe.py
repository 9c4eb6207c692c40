"""`carousel describe-cells`."""

import re

import pytest

from cli.main import main
from model.costs import COSTS


def described(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    assert main(["describe-cells", *arguments]) == 0
    return [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]


def test_every_cell_has_a_line_with_formulas_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line[0]: line[1:] for line in described(capsys, "--input", "8", "--hidden", "8")}
    assert lines.keys() >= COSTS.keys()
    assert lines["lstm"] == ["4*n_h*(n_h + n_x + 1)", "544", "4*n_h*(n_h + n_x)", "512", "2*n_h", "16"]
    assert lines["projected"][1::2] == [
        "448",
        "416",
        "12",
    ]  # n_p = 4: 4 * 8 * 13 + 32, 4 * 8 * 12 + 32, 4 + 8


def test_a_cell_that_cannot_have_these_sizes_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line[0]: line[1:] for line in described(capsys, "--input", "8", "--hidden", "9")}
    assert set(lines["multiplicative-brief"][1::2]) == {"needs n_x = n_h"}
    assert set(lines["multiplicative"][1::2]).isdisjoint({"needs n_x = n_h"})


def test_a_context_costs_a_transformer_more_and_more_and_an_lstm_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = described(capsys, "--hidden", "64")
    start = next(k for k, line in enumerate(lines) if line[0] == "steps read")
    rows = [[int(cell.replace(",", "")) for cell in line if cell] for line in lines[start + 1 :]]
    assert [row[0] for row in rows] == [1, 64, 512, 4096, 32768]
    assert {(row[1], row[2]) for row in rows} == {(128, 4 * 64 * 128)}
    assert [(row[3], row[4]) for row in rows] == [
        (128 * t, 12 * 64**2 + 128 * t) for t in (1, 64, 512, 4096, 32768)
    ]


def test_times_are_measured_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    lines = described(capsys, "--hidden", "8", "--time")
    assert lines[-6][-2:] == ["LSTM: µs a step", "Transformer: µs a step"]
    lstm, transformer = (int(cell.replace(",", "")) for cell in lines[-1][-2:])
    assert transformer > lstm > 0, "after 32,768 steps"


@pytest.mark.parametrize("size", ["0", "-1", "many", "1.5"])
def test_sizes_are_whole_numbers_from_one(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["describe-cells", f"--hidden={size}"])
    assert left.value.code == 2
    assert f"expected a whole number from 1, got {size}" in capsys.readouterr().err

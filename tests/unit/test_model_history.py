"""The course of a training as lines of JSON."""

import json
from pathlib import Path

from model import history


def updates(folder: Path) -> list[float]:
    return [json.loads(line)["updates"] for line in (folder / "history.jsonl").read_text().splitlines()]


def test_lines_are_added_in_order(tmp_path: Path) -> None:
    for number in (10.0, 20.0):
        history.append(tmp_path, {"updates": number})
    assert updates(tmp_path) == [10, 20]


def test_what_came_later_is_forgotten(tmp_path: Path) -> None:
    for number in (10.0, 20.0, 30.0):
        history.append(tmp_path, {"updates": number})
    history.forget_after(tmp_path, 20)
    assert updates(tmp_path) == [10, 20]


def test_a_line_that_was_cut_off_is_forgotten(tmp_path: Path) -> None:
    history.append(tmp_path, {"updates": 10.0})
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"updates": 2')
    history.forget_after(tmp_path, 100)
    assert updates(tmp_path) == [10]


def test_a_new_folder_begins_with_an_empty_history(tmp_path: Path) -> None:
    history.forget_after(tmp_path, 0)
    assert updates(tmp_path) == []

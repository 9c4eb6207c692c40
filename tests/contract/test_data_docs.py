"""`docs/data.md` against the code: every task, every key, every digest."""

from pathlib import Path
from typing import get_args

from model.data import watched
from model.data.pairs import SCAN
from model.data.placed import PLACED
from model.recipe import TaskName, data_section

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()


def test_every_task_is_documented_with_all_keys_of_its_data() -> None:
    rows = {
        cells[1].strip(" `"): cells[4] for line in PAGE.splitlines() if len(cells := line.split("|")) == 6
    }
    shared = set(data_section("characters").model_fields) - {"source"}
    for task in get_args(TaskName):
        keys = set(data_section(task).model_fields) - {"source"}
        assert task in rows
        if task == "words":
            assert keys == shared
        else:
            assert all(f"`{key}`" in rows[task] for key in keys), task


def test_every_digest_that_is_checked_is_there_to_be_read() -> None:
    for file, sha256 in (*PLACED.values(), *(entry for split in SCAN.values() for entry in split)):
        assert file in PAGE
        assert sha256 in PAGE
    assert watched._NAB_SHA256 in PAGE


def test_every_name_of_a_data_set_is_there() -> None:
    assert all(f"`{name}`" in PAGE for name in (*PLACED, *SCAN, watched.NAB))

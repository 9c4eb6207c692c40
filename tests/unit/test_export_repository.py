import subprocess
import sys
from pathlib import Path

import pytest

from export.errors import ExportError
from export.repository import find_model, new_version, place

FULL_DISK = """
import resource, sys
from pathlib import Path
from export.repository import place
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
place({"model.onnx": [bytes(2000)]}, Path(sys.argv[1]))
"""


def place_on_a_full_disk(target: Path) -> str:
    """The last line a process says that may write 1000 bytes a file and wants to place 2000."""
    command = [sys.executable, "-c", FULL_DISK, str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()[-1]


def test_the_first_version_is_1_and_the_next_follows_the_newest(tmp_path: Path) -> None:
    assert new_version(tmp_path / "text", None) == tmp_path / "text" / "1"

    for entry in ("2", "10", "old", ".11.abcd", "007"):
        (tmp_path / "text" / entry).mkdir(parents=True)

    assert new_version(tmp_path / "text", None) == tmp_path / "text" / "11"


def test_asking_for_a_version_makes_nothing(tmp_path: Path) -> None:
    new_version(tmp_path / "text", None)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".hidden", "..", "two words", "tab\t", "ümlaut", "line\n", "n" * 129])
def test_a_name_that_other_servers_could_not_take_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="expected a model name"):
        new_version(tmp_path / name, None)


@pytest.mark.parametrize("name", ["a", "stdlib-v2.1_x", "n" * 128])
def test_a_sane_name_is_taken(tmp_path: Path, name: str) -> None:
    assert new_version(tmp_path / name, 3) == tmp_path / name / "3"


@pytest.mark.parametrize("version", [0, -1])
def test_versions_start_at_1(tmp_path: Path, version: int) -> None:
    with pytest.raises(ExportError, match="version of 1 or more"):
        new_version(tmp_path / "text", version)


def test_an_existing_version_is_refused(tmp_path: Path) -> None:
    place({"model.onnx": [b"first"]}, tmp_path / "text" / "1")

    with pytest.raises(ExportError, match="never overwritten"):
        new_version(tmp_path / "text", 1)


def test_a_file_where_the_model_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").touch()

    with pytest.raises(ExportError, match="found a file"):
        new_version(tmp_path / "text", None)


def test_a_placed_version_is_whole_readable_by_others_and_alone(tmp_path: Path) -> None:
    file = place({"model.onnx": [b"content"]}, tmp_path / "models" / "text" / "1")

    assert file == tmp_path / "models" / "text" / "1" / "model.onnx"
    assert file.read_bytes() == b"content"
    assert [entry.name for entry in (tmp_path / "models" / "text").iterdir()] == ["1"]
    ordinary = tmp_path / "ordinary"
    ordinary.mkdir()
    assert file.parent.stat().st_mode == ordinary.stat().st_mode


def test_of_two_exports_of_one_version_the_second_is_told_and_changes_nothing(tmp_path: Path) -> None:
    target = new_version(tmp_path / "text", None)
    place({"model.onnx": [b"faster"]}, target)

    with pytest.raises(ExportError, match="made by someone else"):
        place({"model.onnx": [b"slower"]}, target)

    assert (target / "model.onnx").read_bytes() == b"faster"
    assert [entry.name for entry in target.parent.iterdir()] == ["1"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    assert "File too large" in place_on_a_full_disk(tmp_path / "text" / "1")

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_other_versions_alone(tmp_path: Path) -> None:
    kept = place({"model.onnx": [b"first"]}, tmp_path / "text" / "1")

    assert "File too large" in place_on_a_full_disk(tmp_path / "text" / "2")

    assert kept.read_bytes() == b"first"
    assert [entry.name for entry in (tmp_path / "text").iterdir()] == ["1"]


def test_a_model_is_found_by_file_by_version_and_by_newest_version(tmp_path: Path) -> None:
    old = place({"model.onnx": [b"old"]}, tmp_path / "text" / "9")
    new = place({"model.onnx": [b"new"]}, tmp_path / "text" / "10")
    (tmp_path / "text" / "11").mkdir()

    assert find_model(old) == old
    assert find_model(old.parent) == old
    assert find_model(tmp_path / "text") == new


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="found neither"):
        find_model(tmp_path)

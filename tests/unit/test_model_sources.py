"""Where texts come from, and what is said when there is none."""

from pathlib import Path

import pytest

from model.data.placed import DataError
from model.data.sources import read_texts


def test_a_file_is_one_text_with_its_line_ends_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes("ä\r\nb\n".encode())
    assert read_texts(str(tmp_path / "text.txt")) == ["ä\r\nb\n"]


def test_a_folder_is_its_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("z.txt", "inner/a.txt", "a.txt", ".hidden"):
        (tmp_path / name).write_text(name)
    assert read_texts(str(tmp_path)) == ["a.txt", "inner/a.txt", "z.txt"]


def test_a_binary_file_is_named_with_the_place_of_the_mistake(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(b"ab\xff\xd8")
    with pytest.raises(DataError, match=r"picture\.txt: expected UTF-8 text, came byte 0xff at 2$"):
        read_texts(str(tmp_path))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no files in it"):
        read_texts(str(tmp_path))


def test_an_unknown_source_is_answered_with_what_there_is() -> None:
    with pytest.raises(
        DataError, match="no text nowhere: expected a file, a folder or one of stdlib, docstrings, tinyshakes"
    ):
        read_texts("nowhere")


def test_the_standard_library_is_source_text_without_its_tests() -> None:
    texts = read_texts("stdlib")
    whole = "".join(texts)
    assert "class JSONEncoder" in whole
    assert "class ChannelTests(unittest.TestCase)" not in whole
    assert read_texts("stdlib") == texts


def test_a_data_set_without_its_folder_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAROUSEL_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"CAROUSEL_DATA is not set; expected the folder that holds tinyshakespeare/"
    ):
        read_texts("tinyshakespeare")


def test_a_data_set_that_is_not_there_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAROUSEL_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no file .*tinyshakespeare/input\.txt"):
        read_texts("tinyshakespeare")


def test_another_text_under_the_name_of_a_data_set_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare/input.txt").write_text("To be, or not to be")
    monkeypatch.setenv("CAROUSEL_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"sha256 is [0-9a-f]{64}, expected 86c4e6aa"):
        read_texts("tinyshakespeare")

"""Music: what is read from files that others made, and how chords are counted."""

import json
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.data.matlab import read_matlab
from model.data.pieces import KEYS, load_pieces
from model.data.placed import DataError
from model.data_recipe import PiecesData
from model.recipe import Recipe
from model.tasks.music import Music
from model.tasks.tasks import load_data, task_of
from model.training import Training

SCALE = [[60 + k, 64 + k] for k in (0, 2, 4, 5, 7, 9, 11, 12)] * 2
SONGS = {"train": [SCALE, SCALE[2:], SCALE[:7]], "valid": [SCALE[1:9]], "test": [SCALE[3:], SCALE[:2]]}


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def array(values: np.ndarray, name: str = "") -> bytes:
    parts = [
        element(6, struct.pack("<II", 9, 0)),
        element(5, struct.pack("<ii", *values.shape)),
        element(1, name.encode()),
        element(2, values.astype(np.uint8).tobytes(order="F")),
    ]
    return element(14, b"".join(parts))


def cells(name: str, arrays: list[np.ndarray]) -> bytes:
    parts = [
        element(6, struct.pack("<II", 1, 0)),
        element(5, struct.pack("<ii", 1, len(arrays))),
        struct.pack("<HH", 1, len(name)) + name.encode().ljust(4, b"\0")
        if len(name) <= 4
        else element(1, name.encode()),
        *map(array, arrays),
    ]
    return element(14, b"".join(parts))


def matlab(*variables: bytes) -> bytes:
    return b"made by hand".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + b"".join(variables)


def compressed(variable: bytes) -> bytes:
    data = zlib.compress(variable)
    return struct.pack("<II", 15, len(data)) + data


def songs(folder: Path, document: Any = SONGS) -> PiecesData:
    file = folder / "songs.json"
    file.write_text(json.dumps(document))
    return PiecesData(source=str(file))


def recipe(source: str, **training: Any) -> Recipe:
    plan = {
        "updates": 150,
        "streams": 3,
        "steps": 20,
        "learning_rate": 0.02,
        "evaluate_every": 150,
    } | training
    model = {"hidden": 32, "layers": 1}
    return Recipe.from_document(
        {"task": "music", "data": {"source": source}, "model": model, "training": plan}
    )


def test_keys_of_a_frame_are_those_that_sound(tmp_path: Path) -> None:
    pieces = load_pieces(songs(tmp_path))
    first = pieces.parts["training"][0][0]
    assert [pieces.names[key] for key in np.flatnonzero(first)] == ["C4", "E4"]
    assert len(pieces.names) == KEYS


def test_a_piano_roll_is_read_from_matlab_packed_or_not(tmp_path: Path) -> None:
    rolls = {name: [np.eye(3 + k, KEYS) for k in range(2)] for name in ("traindata", "validdata", "testdata")}
    for pack in (bytes, compressed):
        content = matlab(*(pack(cells(name, some)) for name, some in rolls.items()))
        found = read_matlab(content)
        assert list(found) == list(rolls)
        assert all(np.array_equal(a, b) for a, b in zip(found["testdata"], rolls["testdata"], strict=True))
        (tmp_path / "x.mat").write_bytes(content)
        assert len(load_pieces(PiecesData(source=str(tmp_path / "x.mat"))).parts["test"]) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"not matlab",
        matlab(cells("a", [np.eye(3)]))[:-40],
        matlab(compressed(cells("a", [np.eye(3)]))[:-9]),
        matlab(element(14, element(6, struct.pack("<II", 5, 0)) * 3)),
        matlab(element(9, b"12345678")),
        matlab(struct.pack("<II", 14, 1 << 31)),
    ],
)
def test_a_damaged_file_is_one_line(content: bytes) -> None:
    if content == matlab(struct.pack("<II", 14, 1 << 31)) or content != b"not matlab":
        with pytest.raises(DataError, match="damaged MATLAB file"):
            read_matlab(content)
    else:
        with pytest.raises(DataError, match="expected a MATLAB file of level 5"):
            read_matlab(content)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    file = tmp_path / "songs.pickle"
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="a pickle can run any program"):
        load_pieces(PiecesData(source=str(file)))
    disguised = file.rename(tmp_path / "songs.json")
    with pytest.raises(DataError, match="not the music that was expected"):
        load_pieces(PiecesData(source=str(disguised)))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"train": [SCALE]}, "not the music"),
        (SONGS | {"test": [[[200]] * 3]}, "a key outside 21 to 108"),
        (SONGS | {"valid": [[[60]]]}, "validation: expected pieces of two frames or more"),
        (SONGS | {"valid": []}, "validation: expected pieces"),
    ],
)
def test_other_documents_are_one_line(document: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=line):
        load_pieces(songs(tmp_path, document))


def test_every_frame_but_the_first_counts_once_however_pieces_are_padded(tmp_path: Path) -> None:
    made = recipe(songs(tmp_path).source)
    task = task_of(made, load_data(made))
    model = task.new_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert task.test(model)["test_nats"] == pytest.approx(KEYS * np.log(2))
    frames = sum(len(piece) - 1 for piece in SONGS["test"])
    assert sum(int((~batch.targets[..., 0].isnan()).sum()) for batch in task._batches("test")) == frames


def test_every_piece_comes_once_in_a_round(tmp_path: Path) -> None:
    made = recipe(songs(tmp_path).source, streams=1)
    task = task_of(made, load_data(made))
    assert isinstance(task, Music)
    assert sorted(task.batch(k).inputs[0].shape[1] for k in (3, 4, 5)) == [6, 13, 15]


def test_a_scale_is_learnt(tmp_path: Path) -> None:
    made = recipe(songs(tmp_path).source)
    training = Training(made, load_data(made), tmp_path / "run")
    list(training.updates())
    model = load_checkpoint(tmp_path / "run").model
    assert training.task.test(model)["test_nats"] < 4

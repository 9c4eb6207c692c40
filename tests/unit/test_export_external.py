"""Weights in a file of their own, forced at a size that a test can write."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from cli.main import main
from export.characters import characters_model
from export.door import write_verified
from export.external import apart, as_inputs, to_files
from export.file import read_model
from export.metadata import contract_of
from export.repository import place
from export.runtime import OnnxStep, open_session
from service.runtime import make_session
from tests.models import tiny_checkpoint

MB = 2**20
CHECKPOINT = tiny_checkpoint(hidden=192, layers=2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "large" / "1"
    return write_verified(characters_model(CHECKPOINT), CHECKPOINT.model, folder, MB).file


def refusal(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["verify", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_large_weights_lie_beside_a_small_graph(file: Path) -> None:
    data = file.with_name("model.onnx.data")

    assert sorted(entry.name for entry in file.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert file.stat().st_size < MB / 10
    assert data.stat().st_size > MB
    assert read_model(file).size_bytes == file.stat().st_size + data.stat().st_size


def test_a_model_within_the_limit_is_one_file(tmp_path: Path) -> None:
    model = characters_model(CHECKPOINT)
    assert to_files(model, "model.onnx").keys() == {"model.onnx"}
    assert to_files(model, "model.onnx", MB).keys() == {"model.onnx", "model.onnx.data"}


def test_both_ways_give_the_same_bits(file: Path) -> None:
    model = characters_model(CHECKPOINT)
    contract = contract_of(model)
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(20, size=(3, 7)), np.array([7, 1, 4], np.int32)
    rows = rng.uniform(-1, 1, (3, contract.state_size)).astype(np.float32)
    inside = OnnxStep(model, contract)(tokens, lengths, rows)
    feeds = {"tokens": tokens, "lengths": lengths, "state": rows}
    for session in (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]),
        make_session(file, "cpu", 1),
        open_session(model, largest_bytes=MB),
    ):
        outside = session.run(["logits", "state_out"], feeds)
        assert [one.tobytes() for one in inside] == [one.tobytes() for one in outside]


def test_verify_and_inspect_read_both_files(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(file)]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert main(["inspect", str(file)]) == 0
    assert f"{read_model(file).parameters:,} parameters" in capsys.readouterr().out


def test_the_model_in_memory_is_left_as_it_was() -> None:
    model = characters_model(CHECKPOINT)
    before = model.SerializeToString()
    light, large = apart(model)
    as_inputs(model)
    to_files(model, "model.onnx", MB)

    assert model.SerializeToString() == before
    assert len(light.SerializeToString()) < MB / 10
    assert {weight.name for weight in large} >= {"layer0.R", "layer1.W", "layer1.R"}
    assert light.metadata_props == model.metadata_props


def test_a_weight_beside_the_graph_with_a_hole_in_it_is_found(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(file.read_bytes())
    weights = np.fromfile(file.with_name("model.onnx.data"), np.float32)
    weights[1000] = np.nan
    weights.tofile(tmp_path / "model.onnx.data")

    assert "weights that hold NaN or infinity: 1" in refusal(tmp_path / "model.onnx", capsys)


def test_weights_cut_short_or_gone_are_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(file.read_bytes())
    data = tmp_path / "model.onnx.data"
    assert f"{data}: expected the weights of the model, found no such file" in refusal(
        tmp_path / "model.onnx", capsys
    )
    data.write_bytes(file.with_name("model.onnx.data").read_bytes()[:-5000])
    assert "bytes of weights, got" in refusal(tmp_path / "model.onnx", capsys)


@pytest.mark.parametrize("elsewhere", ["../secret", "/etc/passwd", "sub/model.onnx.data"])
def test_weights_elsewhere_are_refused(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], elsewhere: str
) -> None:
    model = onnx.load(file, load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = elsewhere
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    assert f"expected weights beside the model, not in '{elsewhere}'" in refusal(
        tmp_path / "model.onnx", capsys
    )


def test_a_disk_that_fails_in_the_second_file_leaves_neither(tmp_path: Path) -> None:
    def failing() -> object:
        yield b"some"
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        place({"model.onnx": [b"graph"], "model.onnx.data": failing()}, tmp_path / "large" / "1")
    assert list(tmp_path.iterdir()) == []

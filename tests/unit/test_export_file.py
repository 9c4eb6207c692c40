import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import helper

from carousel.contract import METADATA_KEY, Contract, ContractError
from export.characters import characters_contract
from export.errors import ExportError
from export.file import read_model
from export.metadata import contract_of, set_contract
from tests.models import LINEAGE, SYMBOLS, tiny_characters, tiny_checkpoint


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_characters(tmp_path_factory.mktemp("models"), layers=2)


@pytest.fixture
def changed(written: Path, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], None]], Path]:
    def write(change: Callable[[onnx.ModelProto], None]) -> Path:
        model = onnx.load(written)
        change(model)
        file = tmp_path / "changed.onnx"
        onnx.save(model, file)
        return file

    return write


def test_onnxruntime_hands_out_the_contract_that_was_written(written: Path) -> None:
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    found = Contract.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY])

    drafted = characters_contract(tiny_checkpoint(layers=2))
    assert found == drafted.model_copy(update={"invariant": True})


def test_the_contract_says_what_the_checkpoint_knew(written: Path) -> None:
    contract = read_model(written).contract

    assert (contract.task, contract.recurrence) == ("characters", "lstm x 2")
    assert contract.inputs[0].vocabulary == contract.outputs[0].vocabulary == SYMBOLS
    assert contract.inputs[0].unknown == 0
    assert contract.signature.lineage == LINEAGE
    assert contract.provenance.metrics == {"bits_per_character": 4.75}
    assert contract.provenance.recipe["model"]["hidden"] == 16
    assert [(segment.name, segment.start, segment.size) for segment in contract.segments] == [
        ("layer0.hidden", 0, 16),
        ("layer0.cell", 16, 16),
        ("layer1.hidden", 32, 16),
        ("layer1.cell", 48, 16),
    ]


def test_retrained_weights_keep_the_layout_and_other_sizes_change_it() -> None:
    one, other, larger = (
        characters_contract(tiny_checkpoint(seed=seed, hidden=hidden))
        for seed, hidden in ((0, 16), (1, 16), (0, 17))
    )

    assert one.signature == other.signature
    assert one.signature != larger.signature


def test_exporting_twice_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    assert tiny_characters(tmp_path, layers=2).read_bytes() == written.read_bytes()


def test_weights_are_counted_and_operators_too(written: Path) -> None:
    found = read_model(written)
    checkpoint = tiny_checkpoint(layers=2)
    second_biases = 2 * 4 * 16  # the operator has two biases a gate, we have one

    assert found.parameters == sum(weight.numel() for weight in checkpoint.model.parameters()) + second_biases
    assert found.operators["LSTM"] == 2
    assert found.size_bytes == written.stat().st_size


def test_a_truncated_file_is_named_whatever_its_length(written: Path, tmp_path: Path) -> None:
    content = written.read_bytes()
    for end in (*range(0, len(content), 997), len(content) - 1):
        file = tmp_path / "cut.onnx"
        file.write_bytes(content[:end])
        with pytest.raises((ExportError, ContractError), match=r"cut\.onnx"):
            read_model(file)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"PK\x03\x04" + bytes(50)])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.onnx"
    file.write_bytes(content)

    with pytest.raises(ExportError, match="expected an ONNX model"):
        read_model(file)


def test_a_file_larger_than_a_model_can_be_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.onnx"
    with file.open("wb") as sparse:
        sparse.truncate(2**31)

    with pytest.raises(ExportError, match="at most 2147483647 bytes, got 2147483648"):
        read_model(file)


def test_a_device_is_not_read() -> None:
    with pytest.raises(ExportError, match="expected a model file"):
        read_model(Path("/dev/zero"))


def test_a_model_of_someone_else_is_told_that_it_has_no_contract(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "foreign",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "foreign.onnx")

    with pytest.raises(ContractError, match=r"foreign\.onnx: expected one 'carousel\.contract'.*found 0"):
        read_model(tmp_path / "foreign.onnx")


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "scores"


def change_dtype(model: onnx.ModelProto) -> None:
    model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT64


def invent_dtype(model: onnx.ModelProto) -> None:
    model.graph.input[1].type.tensor_type.elem_type = 99


def shorten_row(model: onnx.ModelProto) -> None:
    model.graph.input[2].type.tensor_type.shape.dim[1].dim_value = 63


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def drop_time(model: onnx.ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[1]


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, ["B"]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rename_output, "output 'logits' is float32[B, T, 29] in the contract, not in the graph"),
        (change_dtype, "input 'lengths' is int32[B] in the contract, int64[B] in the graph"),
        (invent_dtype, "input 'lengths' is int32[B] in the contract, type 99[B] in the graph"),
        (shorten_row, "input 'state' is float32[B, 64] in the contract, float32[B, 63] in the graph"),
        (fix_batch, "input 'tokens' is int64[B, T] in the contract, int64[1, T] in the graph"),
        (drop_time, "input 'tokens' is int64[B, T] in the contract, int64[B] in the graph"),
        (add_input, "input 'extra' is not in the contract, float32[B] in the graph"),
    ],
)
def test_a_graph_that_breaks_its_contract_is_named_with_the_place(
    changed: Callable[..., Path], change: Callable[[onnx.ModelProto], None], named: str
) -> None:
    with pytest.raises(ContractError) as caught:
        read_model(changed(change))

    assert str(caught.value).endswith(f"contract and graph disagree: {named}")


def test_open_dimensions_may_have_other_names(changed: Callable[..., Path]) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"

    assert read_model(changed(rename)).contract.task == "characters"


def test_a_contract_edited_by_hand_is_found_by_its_signature(changed: Callable[..., Path]) -> None:
    def edit(model: onnx.ModelProto) -> None:
        contract = contract_of(model)
        set_contract(model, contract.model_copy(update={"recurrence": "gru x 2"}))

    with pytest.raises(ContractError, match="signature does not belong to this layout"):
        read_model(changed(edit))


def test_two_contracts_in_one_file_are_refused(changed: Callable[..., Path]) -> None:
    def double(model: onnx.ModelProto) -> None:
        model.metadata_props.append(model.metadata_props[0])

    with pytest.raises(ContractError, match="found 2"):
        read_model(changed(double))


def test_reading_a_model_needs_no_torch_and_no_runtime() -> None:
    program = "import sys, export.file; sys.exit(bool({'torch', 'onnxruntime'} & sys.modules.keys()))"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

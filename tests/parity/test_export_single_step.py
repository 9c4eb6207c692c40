"""`--single-step`: one step of every recurrence, of products alone, computes what its equations say."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from carousel.contract import Contract
from cli.main import main
from export import parity
from export.characters import characters_model
from export.cuda import fallbacks
from export.door import export_checkpoint
from export.errors import ExportError
from export.file import graph_types
from export.metadata import contract_of, set_contract
from export.options import Options
from export.recorded import NEVER, as_recorded, not_recorded
from export.runtime import OnnxStep, open_session
from export.walk import nodes_of
from model.tasks.characters import CharacterModel
from service.runtime import NOT_APPLIED
from tests.kinds import KINDS, TOLERANCE, by_the_equations
from tests.models import EMBEDDING, SYMBOLS, tiny_checkpoint
from tests.unit.test_export_commands import save
from tests.unit.test_export_precision import with_text

SINGLE = Options(target="cuda", single_step=True)


class Drawn(NamedTuple):
    """A model and its graph."""

    model: CharacterModel
    graph: onnx.ModelProto
    contract: Contract


@pytest.fixture(scope="module", params=KINDS)
def drawn(request: pytest.FixtureRequest) -> Drawn:
    checkpoint = tiny_checkpoint(hidden=EMBEDDING, layers=2, **KINDS[request.param])
    graph = characters_model(checkpoint, SINGLE._replace(observe="observed" in request.param))
    return Drawn(checkpoint.model, graph, contract_of(graph))


def test_nothing_is_left_that_a_cuda_graph_would_replay_wrongly(drawn: Drawn) -> None:
    kinds = {node.op_type for node in nodes_of(drawn.graph.graph)}
    assert not kinds & NEVER
    assert {"MatMul", "Gather", "ScatterND"} <= kinds
    assert not_recorded(drawn.graph) == fallbacks(drawn.graph) == []


def test_the_contract_and_the_graph_say_one_step(drawn: Drawn) -> None:
    assert drawn.contract.max_steps == 1
    inputs, outputs = graph_types(drawn.graph)
    assert (inputs["tokens"].shape, outputs["logits"].shape) == (("B", 1), ("B", 1, len(SYMBOLS)))


def test_step_after_step_it_computes_the_equations(drawn: Drawn) -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([7, 1, 12, 4], dtype=np.int32)
    tokens = rng.integers(len(SYMBOLS), size=(4, 12))
    rows = rng.uniform(-0.5, 0.5, (4, drawn.contract.state_size)).astype(np.float32)

    outputs, after = OnnxStep(drawn.graph, drawn.contract)(tokens, lengths, rows)

    for k, length in enumerate(lengths):
        logits, row = by_the_equations(drawn.model, tokens[k, :length], rows[k])
        np.testing.assert_allclose(outputs[k, :length], logits, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(after[k], row, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["lstm", "projected"])
def test_it_passes_the_door_and_verifies_by_itself(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity, "CARRIED_STEPS", 300)
    checkpoint = save(tiny_checkpoint(layers=2, **KINDS[kind]), tmp_path / "best.safetensors")
    given = ["--out", str(tmp_path / "text"), "--for", "cuda", "--single-step"]

    assert main(["export", str(checkpoint), *given]) == 0
    told = capsys.readouterr().out
    assert "torch, 300 steps: states" in told
    assert "results are bit-identical for any batch" in told

    assert main(["verify", str(tmp_path / "text")]) == 0
    assert "operators that a CUDA graph would replay wrongly        0" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "text")]) == 0
    assert "lengths, one step a run" in capsys.readouterr().out


def test_what_the_gates_do_in_a_step_is_what_the_scan_observes_of_it() -> None:
    checkpoint, rng = tiny_checkpoint(layers=2), np.random.default_rng(0)
    feeds = {
        "tokens": rng.integers(len(SYMBOLS), size=(3, 1)),
        "lengths": np.ones(3, np.int32),
        "state": rng.uniform(-1, 1, (6, 64)).astype(np.float32),
        "read_rows": np.arange(3),
        "write_rows": np.arange(3, 6),
    }
    seen = []
    for single_step in (True, False):
        graph = characters_model(checkpoint, Options(target="cuda", observe=True, single_step=single_step))
        seen += open_session(graph).run(["observed"], feeds)
    np.testing.assert_allclose(*seen, rtol=TOLERANCE, atol=TOLERANCE)


def test_float16_is_measured_on_the_held_out_text(tmp_path: Path) -> None:
    written = export_checkpoint(
        with_text(tmp_path), tmp_path / "t", options=SINGLE._replace(precision="fp16")
    )

    (metric,) = [c for c in written.verification.required if c.check.startswith("bits per character")]
    assert (written.contract.precision, written.contract.max_steps) == ("fp16", 1)
    assert 0 < abs(metric.measured) < 0.01
    weights = {weight.name: weight.data_type for weight in onnx.load(written.file).graph.initializer}
    assert weights["layer0.step.weight_h_T"] == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (Options(single_step=True), "expected --for cuda with it"),
        (SINGLE._replace(precision="int8-weights"), "expected --precision fp32 or fp16, got int8-weights"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(tmp_path: Path, options: Options, line: str) -> None:
    with pytest.raises(ExportError, match=f"--single-step.*{line}"):
        export_checkpoint(tiny_checkpoint(), tmp_path / "text", options=options)
    assert list(tmp_path.iterdir()) == []


SIZES = {"different": [3, 5, 1], "many": [2] * 70, "many and different": [4] * 40 + [1] * 33}


def cutting(sizes: list[int], *, at_once: bool) -> onnx.ModelProto:
    """Cut `x`, double every other part, and join the parts in another order; or join what `Neg` left, and cut that."""
    count, width = len(sizes), sum(sizes)
    value = helper.make_tensor_value_info
    parts = [f"p{k}" for k in range(count)]
    nodes = [helper.make_node("Split", ["x", "sizes"], parts, name="cut", axis=-1)]
    joined = [f"q{k}" for k in range(count)]
    nodes += [
        helper.make_node("Neg" if k % 2 else "Abs", [part], [q])
        for k, (part, q) in enumerate(zip(parts, joined, strict=True))
    ]
    if at_once:
        nodes.append(helper.make_node("Concat", joined, ["all"], name="all", axis=-1))
        joined = [f"r{k}" for k in range(count)]
        nodes.append(helper.make_node("Split", ["all", "sizes"], joined, name="again", axis=1))
    nodes.append(helper.make_node("Concat", joined[::-1], ["y"], name="y", axis=1))
    real = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "parts",
        [value("x", real, ["B", width])],
        [value("y", real, ["B", width])],
        [numpy_helper.from_array(np.array(sizes), "sizes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("at_once", [False, True])
def test_parts_are_cut_and_joined_by_what_can_be_recorded_bit_for_bit(
    sizes: list[int], at_once: bool
) -> None:
    plain = cutting(sizes, at_once=at_once)
    x = np.random.default_rng(0).standard_normal((3, sum(sizes))).astype(np.float32)
    x[0, :3] = np.nan, -0.0, np.inf
    assert not_recorded(plain)

    written = as_recorded(cutting(sizes, at_once=at_once))

    assert not_recorded(written) == []
    onnx.checker.check_model(written, full_check=True)
    before, after = (open_session(model).run(None, {"x": x})[0] for model in (plain, written))
    assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize("not_applied", [[], NOT_APPLIED], ids=["all", "as the service opens it"])
def test_what_the_runtime_makes_of_it_is_recorded_rightly_too(not_applied: list[str], tmp_path: Path) -> None:
    """One of its optimisations makes one `Split` of the slices that an unequal one was cut into."""
    graph = characters_model(tiny_checkpoint(**KINDS["projected"]), SINGLE)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        graph.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=not_applied,
    )
    found = not_recorded(onnx.load(tmp_path / "optimised.onnx"))
    assert found == ([] if not_applied else ["Split of [5, 16]"])


def test_a_file_of_one_step_that_a_graph_would_replay_wrongly_does_not_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = characters_model(tiny_checkpoint(cell="peephole"), Options(target="cuda"))
    graph, contract = model.graph, contract_of(model).model_copy(update={"max_steps": 1})
    set_contract(model, contract)
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_value = 1
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())

    assert main(["verify", str(tmp_path / "model.onnx")]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "operators that a CUDA graph would replay wrongly: " in line
    assert line.endswith("allowed 0 (Size, Range, Scan)")

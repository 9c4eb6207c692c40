"""The arena form: rows of all sessions in one matrix, changed in place by the graph. Proved on the CPU provider."""

import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from carousel.contract import Contract
from cli.main import main
from export.characters import characters_model
from export.cuda import fallbacks
from export.door import export_checkpoint
from export.draft import IR_VERSION, OPSET, Draft
from export.file import read_model
from export.options import Options
from export.promises import ARENA
from export.row import join_row, lay_out, next_of, split_row
from export.runtime import OnnxStep
from export.walk import nodes_of
from tests.models import SYMBOLS, tiny_checkpoint

CUDA = Options(target="cuda")
HIDDEN = 16
SIZE = 2 * HIDDEN
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_checkpoint(
        tiny_checkpoint(hidden=HIDDEN), tmp_path_factory.mktemp("arena") / "text", options=CUDA
    ).file


class Arena:
    """An arena in memory of ours, that the runtime is given for the input and for the output."""

    def __init__(self, file: Path, rows: int) -> None:
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.values = np.zeros((rows, SIZE), np.float32)
        self._shared = onnxruntime.OrtValue.ortvalue_from_numpy(self.values)

    def run(self, tokens: np.ndarray, read_rows: list[int], write_rows: list[int]) -> np.ndarray:
        binding = self.session.io_binding()
        binding.bind_cpu_input("tokens", tokens)
        binding.bind_cpu_input("lengths", np.full(len(tokens), tokens.shape[1], np.int32))
        binding.bind_cpu_input("read_rows", np.array(read_rows))
        binding.bind_cpu_input("write_rows", np.array(write_rows))
        binding.bind_ortvalue_input("state", self._shared)
        binding.bind_ortvalue_output("state_out", self._shared)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[1].numpy()


def tokens_of(batch: int, steps: int = 1) -> np.ndarray:
    return RNG.integers(len(SYMBOLS), size=(batch, steps))


def test_it_gives_the_rows_and_answers_of_the_rows_form_and_changes_no_other_row(file: Path) -> None:
    arena = Arena(file, 50)
    arena.values[:] = RNG.uniform(-1, 1, arena.values.shape)
    before, tokens = arena.values.copy(), tokens_of(3, 5)
    plain = characters_model(tiny_checkpoint(hidden=HIDDEN))
    contract = read_model(file).contract.model_copy(update={"arena": None})

    logits = arena.run(tokens, [4, 40, 7], [5, 41, 6])

    expected, rows = OnnxStep(plain, contract)(tokens, np.full(3, 5, np.int32), before[[4, 40, 7]])
    assert logits.tobytes() == expected.tobytes()
    assert arena.values[[5, 41, 6]].tobytes() == rows.tobytes()
    others = np.setdiff1d(np.arange(50), [5, 41, 6])
    assert arena.values[others].tobytes() == before[others].tobytes()


def test_a_run_may_be_repeated_and_gives_the_same(file: Path) -> None:
    arena, tokens = Arena(file, 4), tokens_of(1, 3)
    arena.values[0] = RNG.uniform(-1, 1, SIZE)
    first = arena.run(tokens, [0], [1])
    written = arena.values[1].copy()

    again = arena.run(tokens, [0], [1])

    assert again.tobytes() == first.tobytes()
    assert arena.values[1].tobytes() == written.tobytes()


def test_a_run_that_fails_leaves_every_row_as_it_was(file: Path) -> None:
    arena = Arena(file, 4)
    arena.values[:] = RNG.uniform(-1, 1, arena.values.shape)
    before = arena.values.copy()

    for tokens, read_row in ((np.array([[len(SYMBOLS)]]), 0), (tokens_of(1), 4)):
        with pytest.raises(Exception, match=r"out of data bounds|out of bounds"):
            arena.run(tokens, [read_row], [1])

    assert arena.values.tobytes() == before.tobytes()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_every_number_of_a_row_that_is_written_is_looked_at(number: float) -> None:
    """By the nodes that say so, after a step that changes nothing: a real one may make a number finite again."""
    draft, segments = Draft(), lay_out({"hidden": 3, "cell": 2})
    split_row(draft, segments, ARENA)
    for segment in segments:
        draft.node("Identity", [segment.name], [next_of(segment.name)])
    join_row(draft, segments, ARENA)
    run = onnxruntime.InferenceSession(
        closed(draft, 5).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    states = np.full((6, 5), np.finfo(np.float32).max, np.float32)
    np.fill_diagonal(states, number)
    rows = np.arange(6)
    (finite,) = run.run(["finite"], {"state": states, "read_rows": rows, "write_rows": rows})
    assert np.isfinite(finite).tolist() == [False] * 5 + [True]


def closed(draft: Draft, size: int) -> onnx.ModelProto:
    """The rows of an arena go in and come out."""
    arena = helper.make_tensor_value_info("state", TensorProto.FLOAT, ["N", size])
    rows = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B"]) for name in ("read_rows", "write_rows")
    ]
    finite = helper.make_tensor_value_info("finite", TensorProto.FLOAT, ["B"])
    graph = helper.make_graph(draft._nodes, "rows", [arena, *rows], [finite], list(draft._weights.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def test_time_does_not_grow_with_the_arena(file: Path) -> None:
    small, large = Arena(file, 1 << 8), Arena(file, 1 << 23)
    assert large.values.nbytes == 1 << 30
    tokens, reads, writes = tokens_of(64), list(range(0, 128, 2)), list(range(1, 128, 2))

    def shortest(arena: Arena) -> float:
        times = []
        for _ in range(30):
            started = time.perf_counter()
            arena.run(tokens, reads, writes)
            times.append(time.perf_counter() - started)
        return min(times)

    # A copy of 1 GiB takes a tenth of a second; a run of these rows takes a fraction of a millisecond.
    assert shortest(large) < 10 * shortest(small)


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": cell}
        for cell in (
            "lstm",
            "peephole",
            "coupled",
            "gru",
            "rnn",
            "highway-depth",
            {"kind": "gru", "reset_after": False},
        )
    ],
    ids=str,
)
def test_only_operators_that_stay_on_cuda_are_used(settings: dict) -> None:
    for options in (CUDA, CUDA._replace(observe=True), CUDA._replace(precision="fp16")):
        assert fallbacks(characters_model(tiny_checkpoint(hidden=8, **settings), options)) == []


def test_what_computes_with_a_shape_would_run_on_the_cpu() -> None:
    """ONNX Runtime has shapes in host memory, and puts there what reads them; but not what wants them there."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Squeeze", ["shape"], ["count"]),
        helper.make_node("Range", ["zero", "count", "one"], ["numbers"]),
        helper.make_node("Expand", ["y", "shape"], ["wide"]),
    ]
    graph = helper.make_graph(nodes, "shapes", [], [])
    assert fallbacks(helper.make_model(graph)) == ["Squeeze computes with a shape"]


@pytest.mark.parametrize(
    "settings", [{"cell": "coupled"}, {"cell": "rnn"}, {"cell": "gru"}, {"cell": "peephole"}], ids=str
)
def test_the_operators_of_cuda_compute_what_torch_computes(tmp_path: Path, settings: dict) -> None:
    """Among them the coupled gates, whose input gate has the negated weights of the forget gate."""
    written = export_checkpoint(tiny_checkpoint(hidden=8, **settings), tmp_path / "text", options=CUDA)

    assert written.contract.runs_on == "cuda"
    for node in nodes_of(read_model(written.file).model.graph):
        assert "input_forget" not in {attribute.name for attribute in node.attribute}


def test_the_contract_says_so_and_the_model_verifies_by_itself(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract: Contract = read_model(file).contract
    assert (contract.form, contract.runs_on, contract.format) == ("arena", "cuda", 4)

    assert main(["verify", str(file)]) == 0
    assert "operators that CUDA would leave to the CPU" in capsys.readouterr().out


def test_a_graph_that_looks_at_part_of_a_row_alone_does_not_verify(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(file)
    (looking,) = [node for node in model.graph.node if node.op_type == "Sub" and "nothing" in node.output[0]]
    looking.input[:] = [next_of("layer0.hidden")] * 2
    onnx.save(model, tmp_path / "model.onnx")

    assert main(["verify", str(tmp_path / "model.onnx")]) == 1
    assert "rows it calls finite or not, wrongly: " in capsys.readouterr().err

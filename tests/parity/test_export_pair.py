"""An encoder-decoder as two files of one version: priming and decoder give together what the PyTorch model gives."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from cli.main import main
from export.decoder import decoder_model
from export.door import VerificationError, write_pair
from export.encoder_decoder import Pair, Vocabulary
from export.errors import ExportError
from export.file import read_model
from export.options import PLAIN
from export.priming import priming_model
from export.walk import attributes_of, nodes_of
from export.whole import Origin
from model.attention import LuongAttention, Memory
from model.encoder_decoder import EncoderDecoder
from model.model_recipe import GRUCell, PlainCell, ProjectedCell

SOURCE, TARGET, MOST = tuple("abcdefg"), tuple("<>xyz"), 12
FORMS = {
    "lstm": {},
    "lstm, attention": {"attention": True},
    "lstm, attention, both ways": {"attention": True, "both_ways": True, "layers": 2},
    "highway, attention": {"attention": True, "cell": PlainCell(kind="highway-time")},
    "gru, both ways": {"both_ways": True, "cell": GRUCell(kind="gru")},
    "projected, attention": {"attention": True, "cell": ProjectedCell(kind="projected", projection=5)},
}


def pair(**settings: Any) -> Pair:
    torch.manual_seed(0)
    model = EncoderDecoder(len(SOURCE), len(TARGET), embedding=4, hidden=6, **settings).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.5, 0.5)
    return Pair(model, Vocabulary(SOURCE), Vocabulary(TARGET), Origin("test", "5eed" * 8), MOST)


def sessions(folder: Path) -> list[onnxruntime.InferenceSession]:
    return [
        onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        for name in ("priming.onnx", "model.onnx")
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A version of every form, by its name."""
    root = tmp_path_factory.mktemp("pairs")
    return {
        form: write_pair(pair(**settings), root / str(number) / "1").file.parent
        for number, (form, settings) in enumerate(FORMS.items())
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_passes_the_door_as_two_files(form: str, folders: dict[str, Path]) -> None:
    folder = folders[form]

    assert sorted(file.name for file in folder.iterdir()) == ["model.onnx", "priming.onnx"]
    step, priming = (read_model(folder / name).contract for name in ("model.onnx", "priming.onnx"))
    assert (step.invariant, priming.invariant) == (True, True)
    assert priming.primes == step.signature
    assert [port.name for port in priming.outputs] == [plane.input for plane in step.planes]
    assert [plane.output for plane in step.planes] == ["state_out", None][: len(step.planes)]
    assert (len(step.planes) == 2) == ("attention" in form)
    assert step.outputs[0].feeds == "tokens"
    assert priming.max_steps == MOST


@pytest.mark.parametrize("form", FORMS)
def test_primed_rows_and_steps_give_what_the_model_gives_as_a_whole(
    form: str, folders: dict[str, Path]
) -> None:
    of_torch, (prime, step) = pair(**FORMS[form]), sessions(folders[form])
    rng = np.random.default_rng(0)
    source, lengths = rng.integers(7, size=(4, 9)), np.array([9, 1, 5, 7], np.int32)
    tokens = rng.integers(5, size=(4, 6))
    planes = dict(
        zip(
            [o.name for o in prime.get_outputs()],
            prime.run(None, {"source": source, "lengths": lengths}),
            strict=True,
        )
    )
    logits = []
    for t in range(6):
        feeds = {"tokens": tokens[:, t : t + 1], "lengths": np.ones(4, np.int32)} | planes
        one, planes["state"] = step.run(["logits", "state_out"], feeds)
        logits.append(one)
    with torch.no_grad():
        expected = of_torch.model(*map(torch.as_tensor, (source, tokens, lengths.astype(np.int64))))
    np.testing.assert_allclose(np.concatenate(logits, axis=1), expected.numpy(), atol=1e-5)


def test_the_memory_holds_outputs_and_where_the_source_ended(folders: dict[str, Path]) -> None:
    of_torch, (prime, _) = pair(attention=True), sessions(folders["lstm, attention"])
    source = np.array([[1, 2, 3], [4, 0, 0]])
    _, memory = prime.run(["state", "memory"], {"source": source, "lengths": np.array([3, 1], np.int32)})
    places = memory.reshape(2, MOST, 7)
    assert places[..., 6].sum(axis=1).tolist() == [3, 1]
    assert not places[1, 1:].any()
    with torch.no_grad():
        _, expected = of_torch.model.prime(torch.tensor(source[:1]))
    np.testing.assert_allclose(places[0, :3, :6], expected.outputs_BMW[0].numpy(), atol=1e-6)


def test_a_session_that_was_not_primed_gets_numbers(folders: dict[str, Path]) -> None:
    _, step = sessions(folders["lstm, attention"])
    feeds = {port.name: np.zeros([1, *port.shape[1:]], np.float32) for port in step.get_inputs()[2:]}
    logits, state = step.run(
        ["logits", "state_out"],
        feeds | {"tokens": np.zeros((1, 1), np.int64), "lengths": np.ones(1, np.int32)},
    )
    assert np.isfinite(logits).all()
    assert np.isfinite(state).all()


def test_the_products_of_attention_are_inside_the_step() -> None:
    (scan,) = [node for node in nodes_of(decoder_model(pair(attention=True)).graph) if node.op_type == "Scan"]
    body = attributes_of(scan)["body"]
    assert isinstance(body, onnx.GraphProto)
    inside = [node.op_type for node in body.node]
    assert inside.count("Softmax") == 1
    # The score's two products, the context, and the combination.
    assert inside.count("MatMul") == 4


def test_attention_is_the_published_equations() -> None:
    torch.manual_seed(0)
    attention = LuongAttention(5, 4).double()
    hidden, outputs = torch.randn(2, 3, 4).double(), torch.randn(2, 6, 5).double()
    real = torch.tensor([[1.0] * 6, [1.0] * 2 + [0.0] * 4]).double()
    found = attention(hidden, Memory(outputs * real.unsqueeze(2), real)).detach().numpy()
    W_a, W_c = (part.weight.detach().numpy() for part in (attention.score, attention.combine))
    for b, places in ((0, 6), (1, 2)):
        for t in range(3):
            h_t, memory = hidden[b, t].numpy(), outputs[b, :places].numpy()
            scores = np.array([h_t @ W_a.T @ m_s for m_s in memory])
            weights = np.exp(scores) / np.exp(scores).sum()
            expected = np.tanh(W_c @ np.concatenate([weights @ memory, h_t]))
            np.testing.assert_allclose(found[b, t], expected, rtol=1e-9)


def test_verify_looks_at_both_files_and_inspect_shows_both(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("verify", "inspect"):
        assert main([command, str(folders["lstm, attention"].parent)]) == 0
        out = capsys.readouterr().out
        assert "model.onnx" in out
        assert "priming.onnx" in out


def test_files_of_two_models_are_told(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(folders["lstm"] / "model.onnx", tmp_path)
    shutil.copy(folders["lstm, attention"] / "priming.onnx", tmp_path)
    assert main(["verify", str(tmp_path)]) == 1
    assert "expected the graph that begins sessions of" in capsys.readouterr().err


def test_a_wrong_priming_graph_is_found_and_neither_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = pair(attention=True)
    with torch.no_grad():
        other.model.source.weight[3] += 1e-3
    right = pair(attention=True)

    monkeypatch.setattr("export.door.priming_model", lambda _: priming_model(other))
    with pytest.raises(VerificationError, match="nothing written: priming: torch, random sequences"):
        write_pair(right, tmp_path / "pair" / "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("single_step", [False, True])
def test_it_is_written_in_one_way(tmp_path: Path, single_step: bool) -> None:
    options = PLAIN._replace(target="cuda", single_step=single_step)
    with pytest.raises(ExportError, match="no --single-step, and of an encoder-decoder no --for"):
        write_pair(pair(), tmp_path / "pair" / "1", options)

"""Number formats: what is short, what stays long, and what a machine does not have."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.amp import GradScaler
from torch.testing import assert_close

from model.data.corpus import Corpus
from model.data.vocabulary import Vocabulary
from model.learner import DivergedError, Learner
from model.precision import Autocast, PrecisionError, fabric_precision
from model.processes import Processes
from model.recipe import Recipe

TEXT = "the quick brown fox jumps over the lazy dog. " * 10


@pytest.fixture
def corpus() -> Corpus:
    vocabulary = Vocabulary.of_text(TEXT, 100)
    return Corpus(vocabulary, vocabulary.encode(TEXT), vocabulary.encode(TEXT[:90]), sha256="")


def recipe(**training: Any) -> Recipe:
    plan = {"updates": 100, "streams": 4, "steps": 9, "learning_rate": 0.02, "evaluate_every": 50} | training
    return Recipe.from_document(
        {
            "task": "characters",
            "data": {"source": "none"},
            "model": {"embedding": 8, "hidden": 32, "layers": 1},
            "training": plan,
        }
    )


def test_the_carried_state_goes_in_as_it_came_out(corpus: Corpus) -> None:
    """Fabric's own plugin rounds it to bfloat16 on its way into the model."""
    learner = Learner(recipe(precision="bf16"), corpus)
    seen: list[torch.Tensor] = []
    learner.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1][0].cell))
    learner.update(0)
    carried = learner.pack()["state.layer0.cell"].clone()
    learner.update(1)
    assert torch.equal(seen[1], carried)
    assert seen[1].dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_fp16_is_refused_where_there_is_no_cuda() -> None:
    with pytest.raises(PrecisionError, match="fp16 needs a CUDA device, and there is none: take bf16"):
        fabric_precision("fp16")


def test_auto_is_never_a_format_that_needs_its_loss_scaled() -> None:
    assert fabric_precision("auto").precision in {"32-true", "bf16-mixed"}


@pytest.fixture
def _without_onednn() -> Iterator[None]:
    """fp16 on the CPU: oneDNN has no LSTM for it, PyTorch's own one does."""
    torch._C._set_mkldnn_enabled(False)  # the public switch warns of what it does to Intel GPUs
    yield
    torch._C._set_mkldnn_enabled(True)


def half(scaler: GradScaler) -> Processes:
    return Processes(Autocast("16-mixed", "cpu", scaler))


@pytest.mark.usefixtures("_without_onednn")
def test_a_scaled_loss_learns_what_an_unscaled_one_learns(corpus: Corpus) -> None:
    scaled, plain = Learner(recipe(), corpus, half(GradScaler("cpu"))), Learner(recipe(), corpus)
    losses = [(scaled.update(number), plain.update(number)) for number in range(30)]
    assert losses[-1][1] < 2.5 < losses[0][1]
    assert [one for one, _ in losses] == pytest.approx([other for _, other in losses], rel=2e-2)
    gradient, expected = (learner.model.head.bias.grad for learner in (scaled, plain))
    assert gradient is not None
    assert expected is not None
    assert float(gradient.norm()) == pytest.approx(
        float(expected.norm()), rel=0.1
    )  # in the scale of the bound


@pytest.mark.usefixtures("_without_onednn")
def test_a_gradient_too_large_for_fp16_skips_the_update_and_halves_the_scale(corpus: Corpus) -> None:
    scaler = GradScaler("cpu", init_scale=2.0**40)
    learner = Learner(recipe(), corpus, half(scaler))
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    learner.update(0)
    assert_close(learner.model.state_dict(), before, rtol=0, atol=0)
    assert scaler.get_scale() == 2.0**39


@pytest.mark.usefixtures("_without_onednn")
def test_a_gradient_that_no_scale_makes_finite_stops_the_training(corpus: Corpus) -> None:
    scaler = GradScaler("cpu")
    learner = Learner(recipe(), corpus, half(scaler))
    learner.model.head.bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(DivergedError, match=r"the gradient of head\.bias"):
        _ = [learner.update(number) for number in range(30)]
    assert scaler.get_scale() == 1


@pytest.mark.usefixtures("_without_onednn")
def test_the_scale_is_known_after_a_stop(corpus: Corpus) -> None:
    before, after = GradScaler("cpu", init_scale=2.0**40), GradScaler("cpu")
    first, second = (Learner(recipe(), corpus, half(scaler)) for scaler in (before, after))
    for number in range(20):
        first.update(number)
    second.unpack(first.pack())
    assert after.state_dict() == before.state_dict()
    assert after.get_scale() < 2.0**30
    assert first.update(20) == second.update(20)

"""The `[model]` section: what is accepted, what older recipes mean today, and that every network trains and is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from model.cells import CELLS
from model.checkpoint import Document, load_checkpoint, weights, write_checkpoint
from model.data.corpus import Corpus
from model.data.vocabulary import Vocabulary
from model.learner import Learner
from model.model_recipe import ModelRecipe
from model.recipe import Recipe, RecipeError

TEXT = "the quick brown fox jumps over the lazy dog. " * 10
SIZES = {"embedding": 8, "hidden": 8, "layers": 2}
REGULARISED = {
    "share": True,
    "tie": True,
    "dropout": {"embedding": 0.1, "input": 0.2, "between": 0.2, "output": 0.2, "hidden": 0.1, "weight": 0.2},
    "zoneout": {"hidden": 0.1},
    "activation_penalty": 2.0,
    "temporal_penalty": 1.0,
    "initialise": {"recurrent": "xavier", "scale": 0.5, "small_candidate": True},
    "checkpointing": True,
}
NETWORKS: dict[str, dict[str, Any]] = {
    **{kind: {"cell": kind} for kind in CELLS if kind != "projected"},
    "projected": {"cell": {"kind": "projected", "projection": 4, "cell_clip": 3.0, "projection_clip": 3.0}},
    "regularised": REGULARISED,
    "regularised gru": REGULARISED | {"cell": {"kind": "gru", "reset_after": False}},
    "untied": {"dropout": {"between": 0.5, "hidden": 0.5, "untied": True}, "initialise": {"chrono": 20}},
}


@pytest.fixture
def corpus() -> Corpus:
    vocabulary = Vocabulary.of_text(TEXT, 100)
    return Corpus(vocabulary, vocabulary.encode(TEXT), vocabulary.encode(TEXT[:90]), sha256="")


def recipe(**model: Any) -> Recipe:
    plan = {"updates": 9, "streams": 4, "steps": 9, "learning_rate": 0.02, "evaluate_every": 9}
    document = {"task": "characters", "data": {"source": "none"}, "model": SIZES | model, "training": plan}
    return Recipe.from_document(document)


def test_older_documents_mean_what_they_meant() -> None:
    """Those of the first release know four keys; checkpoints hold them."""
    found = ModelRecipe.model_validate({"embedding": 64, "hidden": 256, "layers": 2, "dropout": 0.5})
    assert found == ModelRecipe.model_validate(
        {"embedding": 64, "hidden": 256, "layers": 2, "dropout": {"between": 0.5}, "cell": {"kind": "lstm"}}
    )
    assert (found.dropout.between, found.dropout.locked, found.cell.kind) == (0.5, False, "lstm")


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_a_section_survives_json(settings: dict[str, Any]) -> None:
    found = ModelRecipe.model_validate(SIZES | settings)
    assert ModelRecipe.model_validate(json.loads(found.model_dump_json())) == found


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"cell": "lstms"}, r"model\.cell: Input tag 'lstms' .* 'lstm', .*'rnn'"),
        ({"cell": "projected"}, r"model\.cell\.projected\.projection: expected a value, came none"),
        ({"cell": {"kind": "gru", "projection": 3}}, r"model\.cell\.gru\.projection: unknown key"),
        ({"cell": {"kind": "rnn", "nonlinearity": "sin"}}, r"nonlinearity: Input should be 'tanh' or 'relu'"),
        ({"dropout": 1.0}, r"model\.dropout\.between: Input should be less than 1 \(came: 1\.0\)"),
        ({"dropout": {"betwen": 0.5}}, r"model\.dropout\.betwen: unknown key"),
        ({"zoneout": {"hidden": -0.5}}, r"model\.zoneout\.hidden: .* greater than or equal to 0"),
        (
            {"initialise": {"forget_bias": 1.0, "chrono": 9}},
            r"model\.initialise: expected forget_bias or chrono",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError, match=line) as raised:
        recipe(**settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_every_network_learns_goes_on_after_a_stop_and_comes_back_from_its_checkpoint(
    settings: dict[str, Any], corpus: Corpus, tmp_path: Path
) -> None:
    plan = recipe(**settings)
    learner = Learner(plan, corpus)
    first = learner.update(0)
    packed = {name: tensor.clone() for name, tensor in learner.pack().items()}
    rest = [learner.update(number) for number in range(1, 9)]
    assert rest[-1] < first

    again = Learner(plan, corpus)
    again.unpack(packed)
    assert [again.update(number) for number in range(1, 9)] == rest

    document = Document(
        recipe=plan.model_dump(),
        vocabulary=corpus.vocabulary.symbols,
        lineage="5eed" * 8,
        data_sha256="",
        metrics={},
        revision="",
        created="",
    )
    write_checkpoint(tmp_path / "best.safetensors", document, weights(learner.model))
    loaded, tokens = load_checkpoint(tmp_path).model, torch.arange(10).view(2, 5)
    learner.model.eval()
    with torch.no_grad():
        found, _ = loaded(tokens, loaded.stack.initial_state(2))
        expected, _ = learner.model(tokens, learner.model.stack.initial_state(2))
    assert_close(found, expected, rtol=0, atol=0)


def test_penalties_change_the_gradient_and_not_the_loss_that_is_told(corpus: Corpus) -> None:
    plain, penalised = Learner(recipe(), corpus), Learner(recipe(activation_penalty=100.0), corpus)
    assert plain.update(0) == penalised.update(0)
    gradients = [learner.model.stack.cells[0].bias.grad for learner in (plain, penalised)]
    assert not torch.allclose(*gradients)
    assert plain.update(1) != penalised.update(1)

"""Small models for tests: untrained, and through the same door as real ones."""

from pathlib import Path
from typing import Any

import torch

from export.door import export_checkpoint
from export.options import Options, Target
from model.checkpoint import Checkpoint
from model.data.vocabulary import UNKNOWN, UNKNOWN_SYMBOL
from model.recipe import ModelRecipe
from model.tasks.characters import CharacterModel

SYMBOLS = (UNKNOWN_SYMBOL, *"\n abcdefghijklmnopqrstuvwxyz")
EMBEDDING = 8
LINEAGE = "5eed" * 8
DATA = {"source": "stdlib"}
TRAINING = {"updates": 1, "streams": 1, "steps": 1, "learning_rate": 0.001, "evaluate_every": 1}


def tiny_checkpoint(
    *, hidden: int = 16, layers: int = 1, seed: int = 0, lineage: str = LINEAGE, **settings: Any
) -> Checkpoint:
    """An untrained character model with random weights, recurrent biases included; `settings` are a recipe's."""
    sizes = ModelRecipe.model_validate(
        {"embedding": EMBEDDING, "hidden": hidden, "layers": layers} | settings
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CharacterModel(len(SYMBOLS), sizes).eval()
        for weight in model.stack.parameters():
            if weight.dim() == 1:  # fresh biases and peepholes are 0 and 1: a wrong order of gates could hide
                torch.nn.init.uniform_(weight, -0.5, 0.5)
    return Checkpoint(
        model=model,
        recipe={"task": "characters", "data": DATA, "model": sizes.model_dump(), "training": TRAINING},
        vocabulary=SYMBOLS,
        unknown=UNKNOWN,
        lineage=lineage,
        data_sha256="0" * 64,
        metrics={"bits_per_character": 4.75},
        revision="test",
        created="2026-01-01T00:00:00Z",
        task="characters",
    )


def tiny_characters(
    path: Path,
    *,
    hidden: int = 16,
    layers: int = 1,
    seed: int = 0,
    name: str = "tiny",
    version: int = 1,
    lineage: str = LINEAGE,
    target: Target = "cpu",
    single_step: bool = False,
    **settings: Any,
) -> Path:
    """Export a tiny model into the repository of models at `path` and return its file.

    Models with equal sizes and lineage have equal signatures; the seed changes the weights only.
    """
    checkpoint = tiny_checkpoint(hidden=hidden, layers=layers, seed=seed, lineage=lineage, **settings)
    options = Options(target=target, single_step=single_step)
    return export_checkpoint(checkpoint, path / name, version, options).file

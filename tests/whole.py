"""Small models that need all of their input at once, and encoder-decoders; untrained, and through the door of real ones."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from carousel.contract import Port
from export.door import write_pair, write_whole
from export.encoder_decoder import Pair, Vocabulary
from export.whole import Origin, Whole
from model.bidirectional import Bidirectional
from model.cells.child_sum import ChildSumLSTM
from model.encoder_decoder import EncoderDecoder
from model.model_recipe import PlainCell

ORIGIN = Origin("test", "5eed" * 8)
EMBEDDING, HIDDEN, CLASSES, SYMBOLS = 4, 6, 3, tuple("abcdefg")
FEATURES, CHILDREN = 5, 3
SOURCE, TARGET, MOST_SOURCE = SYMBOLS, tuple("<>xyz"), 12
MOST = 64


def both_ways(cell: Any = None, *, each: bool = True, seed: int = 0) -> Whole:
    """A network that reads both ways, and answers every step or a whole sequence."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = fresh(Bidirectional(EMBEDDING, HIDDEN, 2, cell=cell or PlainCell(kind="lstm")))
        return Whole(
            nn.Embedding(len(SYMBOLS), EMBEDDING),
            network,
            nn.Linear(network.width, CLASSES),
            Port(name="tokens", dtype="int64", vocabulary=SYMBOLS),
            Port(name="y", dtype="float32", shape=(CLASSES,), axes=("batch", "time") if each else ("batch",)),
            ORIGIN,
            max_steps=MOST,
        )


def tree() -> Whole:
    """A child-sum network over forests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Whole(
            nn.Linear(FEATURES, EMBEDDING),
            fresh(ChildSumLSTM(EMBEDDING, HIDDEN)),
            nn.Linear(HIDDEN, CLASSES),
            Port(name="x", dtype="float32", shape=(FEATURES,), axes=("node",)),
            Port(name="y", dtype="float32", shape=(CLASSES,), axes=("node",)),
            ORIGIN,
            CHILDREN,
            max_steps=MOST,
        )


def pair(*, seed: int = 0, **settings: Any) -> Pair:
    """An encoder-decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = fresh(
            EncoderDecoder(len(SOURCE), len(TARGET), embedding=EMBEDDING, hidden=HIDDEN, **settings)
        )
    return Pair(model, Vocabulary(SOURCE), Vocabulary(TARGET), ORIGIN, MOST_SOURCE)


def fresh(module: Any) -> Any:
    """With biases that are not all the same, so that a wrong order of gates shows."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.5, 0.5)
    return module.eval()


def write(repository: Path, name: str, model: Whole | Pair, version: int = 1) -> Path:
    """Export into a repository of models."""
    target = repository / name / str(version)
    return (write_whole if isinstance(model, Whole) else write_pair)(model, target).file

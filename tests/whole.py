"""Small models that need all of their input at once, and encoder-decoders; untrained, and through the door of real ones."""

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from carousel.contract import Port
from export.decoder import decoder_model
from export.door import write_pair, write_whole
from export.encoder_decoder import Pair, Vocabulary
from export.priming import priming_model
from export.whole import Origin, Whole, whole_model
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


def pair(*, seed: int = 2, **settings: Any) -> Pair:
    """An encoder-decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = fresh(
            EncoderDecoder(len(SOURCE), len(TARGET), embedding=EMBEDDING, hidden=HIDDEN, **settings)
        )
        with torch.no_grad():
            model.head.weight *= 8  # else its bias alone would say which symbol is the most probable one
    return Pair(model, Vocabulary(SOURCE), Vocabulary(TARGET), ORIGIN, MOST_SOURCE)


def fresh(module: Any) -> Any:
    """With biases that are not all the same, so that a wrong order of gates shows."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.5, 0.5)
    return module.eval()


def draw(repository: Path, name: str, model: Whole | Pair) -> None:
    """Put the graphs into a repository of models as they are drawn: what the door verifies is its tests' business."""
    graphs = (
        {"model.onnx": whole_model(model)}
        if isinstance(model, Whole)
        else {"model.onnx": decoder_model(model), "priming.onnx": priming_model(model)}
    )
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    for file, graph in graphs.items():
        onnx.save(graph, folder / file)


def write(repository: Path, name: str, model: Whole | Pair, version: int = 1) -> Path:
    """Export into a repository of models."""
    target = repository / name / str(version)
    return (write_whole if isinstance(model, Whole) else write_pair)(model, target).file

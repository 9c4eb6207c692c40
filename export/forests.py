"""The graph of a Tree-LSTM that was trained to answer at the roots of trees."""

from carousel.contract import Port
from export.step import origin_of
from export.whole import Whole
from model.checkpoint import Checkpoint
from model.tasks.listops import DIGITS, MOST_ARGUMENTS
from model.tasks.trees import TreeModel


def whole_of(checkpoint: Checkpoint, model: TreeModel) -> Whole:
    """Model and ports of a checkpoint, as `export.door.write_whole` takes them: every node has an answer.

    Args:
        checkpoint: Where the model comes from.
        model: Its model.
    """
    return Whole(
        before=model.embedding,
        network=model.cell,
        head=model.head,
        input=Port(
            name="tokens", dtype="int64", meaning="token", vocabulary=checkpoint.vocabulary, axes=("node",)
        ),
        output=Port(
            name="logits",
            dtype="float32",
            shape=(len(DIGITS),),
            meaning="logits",
            vocabulary=DIGITS,
            axes=("node",),
        ),
        origin=origin_of(checkpoint),
        most_children=MOST_ARGUMENTS,
    )

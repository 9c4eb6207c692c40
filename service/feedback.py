"""Which answers of a model are its own next inputs, as its contract tells. Pure."""

from typing import NamedTuple

import numpy as np

from carousel.contract import Contract, Port
from carousel.wire.frames import NUMPY
from service.cohort import Array
from service.errors import BackendFailedError, ModelDiffersError


class Feed(NamedTuple):
    """An output whose values are an input one step later."""

    output: int
    """Position among the outputs,"""
    input: int
    """and among the inputs."""


def feeds_of(contract: Contract) -> list[Feed]:
    """What a model feeds back: what its outputs say (`feeds`), each input at most once.

    In contracts older than `feeds` it is the only float output with a vocabulary, if the only integer input with one has
    the same: scores of the next token.
    """
    names = [port.name for port in contract.inputs]
    said = {
        names.index(port.feeds): output for output, port in enumerate(contract.outputs) if port.feeds in names
    }
    if said:
        return [Feed(output, fed) for fed, output in sorted(said.items())]
    tokens = [k for k, port in enumerate(contract.inputs) if port.vocabulary and "int" in port.dtype]
    scores = [k for k, port in enumerate(contract.outputs) if port.vocabulary and "float" in port.dtype]
    if len(tokens) != 1 or len(scores) != 1:
        return []
    alike = contract.inputs[tokens[0]].vocabulary == contract.outputs[scores[0]].vocabulary
    return [Feed(scores[0], tokens[0])] if alike else []


def token_ports(contract: Contract) -> tuple[Port, int]:
    """The one input of a model that answers tokens with scores of the next one, and the position of that output.

    Raises:
        ModelDiffersError: the model is another one.
    """
    for feed in feeds_of(contract):
        token, scores = contract.inputs[feed.input], contract.outputs[feed.output]
        if len(contract.inputs) == 1 and _is_drawn(scores, token):
            return token, feed.output
    raise ModelDiffersError(
        "expected a model with one input, a token, and a float output that feeds it with a score for each token; "
        f"this one has {_described(contract)}"
    )


def check_feeds(contract: Contract, feeds: list[Feed]) -> None:
    """Whether values can be fed back without anybody's choice.

    Raises:
        ModelDiffersError: they cannot.
    """
    for output, fed in ((contract.outputs[feed.output], contract.inputs[feed.input]) for feed in feeds):
        floats = "float" in output.dtype and "float" in fed.dtype and output.shape == fed.shape
        if not floats and not _is_drawn(output, fed):
            raise ModelDiffersError(
                f"expected outputs that feed a float input of the same shape, or a token by its scores; "
                f"{_port(output)} feeds {_port(fed)}"
            )


def fed_back(output: Port, fed: Port, values: Array) -> Array:
    """The input that the answer to a step is: itself, or the most probable token (of several the lowest).

    Args:
        output: Where the values come from,
        fed: and where they go to; both seen by `check_feeds`.
        values: `[*output.shape]`

    Returns:
        `[*fed.shape]`, of the input's dtype.

    Raises:
        BackendFailedError: they are not finite, which no input may be.
    """
    drawn = "int" in fed.dtype
    with np.errstate(over="ignore"):
        made = np.asarray(np.argmax(values) if drawn else values).astype(NUMPY[fed.dtype])
    # A score of -inf rules a token out.
    if not np.isfinite(np.max(values) if drawn else made).all():
        raise BackendFailedError(
            f"{output.name}: the answer is not finite and cannot be fed back to {fed.name}"
        )
    return made


def _is_drawn(scores: Port, token: Port) -> bool:
    """Whether every score belongs to a token that the input takes."""
    if "float" not in scores.dtype or "int" not in token.dtype or token.shape or len(scores.shape) != 1:
        return False
    return scores.size <= token_count(token)


def token_count(token: Port) -> int:
    """Tokens from 0 to one less than this are taken by an integer input."""
    return len(token.vocabulary) if token.vocabulary else int(np.iinfo(NUMPY[token.dtype]).max) + 1


def _described(contract: Contract) -> str:
    return f"{', '.join(map(_port, contract.inputs))} to {', '.join(map(_port, contract.outputs))}"


def _port(port: Port) -> str:
    return f"{port.name} {port.dtype}{list(port.shape)}" + (f" feeding {port.feeds}" if port.feeds else "")

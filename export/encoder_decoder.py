"""An encoder-decoder as two graphs, and what their contracts say: `export.decoder` and `export.priming` draw them."""

from typing import NamedTuple

from carousel.contract import Contract, Plane, Port, Signature, layout_hash
from export.layers import initial_row, recurrence_of, state_parts
from export.row import lay_out, plane_of
from export.whole import LENGTHS, Origin
from model.encoder_decoder import EncoderDecoder

TOKENS, LOGITS, SOURCE, MEMORY = "tokens", "logits", "source", "memory"


class Vocabulary(NamedTuple):
    """What tokens stand for."""

    symbols: tuple[str, ...]
    unknown: int | None = None


class Pair(NamedTuple):
    """An encoder-decoder with what its contracts say."""

    model: EncoderDecoder
    """In evaluation."""
    source: Vocabulary
    target: Vocabulary
    origin: Origin
    max_source: int
    """M, the longest source."""


def decoder_contract(pair: Pair) -> Contract:
    """What the step graph promises before anything was measured."""
    cells = list(pair.model.decoder.by_layer())
    segments = lay_out(state_parts(cells))
    inputs = (_tokens(TOKENS, pair.target),)
    symbols = pair.target.symbols
    outputs = (
        Port(
            name=LOGITS,
            dtype="float32",
            shape=(len(symbols),),
            meaning="logits",
            vocabulary=symbols,
            feeds=TOKENS,
        ),
    )
    planes = (plane_of(segments), *_memory_planes(pair))
    recurrence = f"{recurrence_of(cells)}, {'with attention' if pair.model.attention else 'primed'}"
    return Contract(
        format=3,
        task=pair.origin.task,
        recurrence=recurrence,
        inputs=inputs,
        outputs=outputs,
        lengths=LENGTHS,
        planes=planes,
        segments=segments,
        initial=initial_row(cells),
        invariant=False,
        signature=Signature(
            layout=layout_hash(recurrence, inputs, outputs, planes, segments), lineage=pair.origin.lineage
        ),
        provenance=pair.origin.provenance,
    )


def priming_contract(pair: Pair) -> Contract:
    """What the priming graph promises before anything was measured."""
    decoder = decoder_contract(pair)
    inputs = (_tokens(SOURCE, pair.source),)
    outputs = tuple(
        Port(name=plane.input, dtype=plane.dtype, shape=(plane.size,), meaning="plane", axes=("batch",))
        for plane in decoder.planes
    )
    ways = ", both ways" if pair.model.bridges else ""
    recurrence = f"{recurrence_of(list(pair.model.decoder.by_layer()))}{ways}"
    return Contract(
        format=3,
        kind="priming",
        task=pair.origin.task,
        recurrence=recurrence,
        inputs=inputs,
        outputs=outputs,
        lengths=LENGTHS,
        planes=(),
        segments=(),
        max_steps=pair.max_source,
        invariant=False,
        signature=Signature(
            layout=layout_hash(recurrence, inputs, outputs, (), ()), lineage=pair.origin.lineage
        ),
        provenance=pair.origin.provenance,
        primes=decoder.signature,
    )


def _tokens(name: str, vocabulary: Vocabulary) -> Port:
    return Port(
        name=name,
        dtype="int64",
        meaning="token",
        vocabulary=vocabulary.symbols,
        unknown=vocabulary.unknown,
    )


def _memory_planes(pair: Pair) -> tuple[Plane, ...]:
    if pair.model.attention is None:
        return ()
    size = pair.max_source * (pair.model.encoder.width + 1)
    return (Plane(input=MEMORY, output=None, dtype="float32", size=size),)

"""Drive one session on a running service.

Text models (a vocabulary on the input and on the output) read text and go on with it: all of a pipe at once, or
a line at a time at the prompt. Other models read JSON lines, {"input": [...]} with a list of T steps for each input,
and write JSON lines with the outputs.

  carousel stream --generate 200 < beginning.txt
  carousel stream --model sensor < steps.jsonl
  carousel stream --session diary --keep        comes back to the same session each time
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.client import Arrays, Client, ServedModel, Session, SessionGoneError
from carousel.contract import Contract, Port
from carousel.errors import CarouselError
from carousel.text import decode, encode, sample
from carousel.wire.carousel_pb2 import Reason
from carousel.wire.frames import NUMPY

FIRST_ANSWER_S = 5.0
"""Whether a server is there is known soon; steps wait longer, since they survive its restart."""
STEP_TIMEOUT_S = 60.0

Logits = NDArray[np.floating[Any]]
"""`[V]`, one for each symbol of the vocabulary."""


class StreamError(CarouselError):
    """What was asked for does not fit what is being served."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--target", default="127.0.0.1:8001", help="address of the service (%(default)s)")
    parser.add_argument("--model", help="name of the model; may be left out if only one is served")
    parser.add_argument("--session", default="", help="id of the session: it is gone on with, or else opened")
    parser.add_argument("--keep", action="store_true", help="leave the session open and print its id")
    parser.add_argument(
        "--generate",
        type=_count,
        default=200,
        metavar="N",
        help="characters to draw after the text (%(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=_temperature,
        default=0.8,
        metavar="X",
        help="0 always takes the likeliest (%(default)s)",
    )
    parser.add_argument("--seed", type=_count, metavar="N", help="make the draws repeatable")
    parser.add_argument(
        "--tls-root", type=Path, metavar="FILE", help="certificates to trust (PEM); turns TLS on"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="your own certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="your token, as `carousel token` printed it"
    )


def run(args: argparse.Namespace) -> int:
    """Step a session through the standard input."""
    with Client(
        args.target,
        token=None if args.token_file is None else args.token_file.read_text().strip(),
        tls_root=args.tls_root,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        timeout_s=FIRST_ANSWER_S,
    ) as client:
        session = _session(client, args.model, args.session)
        try:
            if _is_text(session.contract):
                _stream_text(session, args)
            else:
                _stream_json(session)
        finally:
            if args.keep:
                print(f"session {session.id}", file=sys.stderr)
            else:
                session.close()
    return 0


def _session(client: Client, model: str | None, session_id: str) -> Session:
    if session_id:
        try:
            session = client.attach(session_id)
        except SessionGoneError as error:
            if error.reason not in (Reason.SESSION_NOT_FOUND, Reason.SESSION_CLOSED):
                raise
        else:
            if model not in (None, session.model):
                raise StreamError(f"session {session_id!r} runs model {session.model!r}, not {model!r}")
            return session
    return client.open(model or _only_model(client.models()), session=session_id)


def _only_model(models: list[ServedModel]) -> str:
    names = sorted({model.name for model in models})
    if len(names) != 1:
        raise StreamError(f"choose one with --model: {', '.join(names) or 'no model is being served'}")
    return names[0]


def _is_text(contract: Contract) -> bool:
    source, target = contract.inputs[0], contract.outputs[0]
    return (
        len(contract.inputs) == 1
        and source.vocabulary is not None
        and source.vocabulary == target.vocabulary
        and all(len(symbol) == 1 for symbol in source.vocabulary)
        and source.shape == ()
        and target.shape == (len(source.vocabulary),)
    )


def _stream_text(session: Session, args: argparse.Namespace) -> None:
    rng = np.random.default_rng(args.seed)
    logits: Logits | None = None
    for text in _prompted() if sys.stdin.isatty() else [sys.stdin.read()]:
        logits = _read(session, text, logits)
        if logits is None:
            continue
        for _ in range(args.generate):
            logits = _write(session, sample(logits, args.temperature, rng))
        print()
    if logits is None:
        raise StreamError("expected text to go on with, came none")


def _prompted() -> Iterator[str]:
    """Lines typed at a prompt, without their ends: what is drawn goes on with the last word."""
    while True:
        try:
            yield input("> ")
        except EOFError:
            return


def _read(session: Session, text: str, logits: Logits | None) -> Logits | None:
    """Step through a text; returns what the model expects next, or `logits` if there is no text."""
    tokens = encode(text, session.contract.inputs[0])
    for start in range(0, len(tokens), session.chunk_steps):
        logits = _step(session, tokens[start : start + session.chunk_steps])
    return logits


def _write(session: Session, token: int) -> Logits:
    """Print a symbol and step it through."""
    port = session.contract.inputs[0]
    print(decode([token], port), end="", flush=True)
    return _step(session, np.array([token], NUMPY[port.dtype]))


def _step(session: Session, tokens: NDArray[Any]) -> Logits:
    """Logits `[V]` after the last of the tokens `[T]`."""
    outputs = session.step(tokens, timeout_s=STEP_TIMEOUT_S)
    logits: Logits = outputs[session.contract.outputs[0].name][-1]
    unknown = session.contract.inputs[0].unknown
    if unknown is not None:
        logits[unknown] = -np.inf  # it stands for nothing that could be written
    return logits


def _stream_json(session: Session) -> None:
    for number, line in enumerate(sys.stdin, start=1):
        if line.strip():
            outputs = session.step(_parsed(line, number, session.contract), timeout_s=STEP_TIMEOUT_S)
            print(json.dumps({name: array.tolist() for name, array in outputs.items()}), flush=True)


def _parsed(line: str, number: int, contract: Contract) -> Arrays:
    ports = {port.name: port for port in contract.inputs}
    try:
        given = json.loads(line)
        if not isinstance(given, dict) or given.keys() != ports.keys():
            raise StreamError(
                f"line {number}: expected an object with {', '.join(ports)}, came {line.strip()}"
            )
        return {name: _array(ports[name], values) for name, values in given.items()}
    except (TypeError, ValueError) as error:
        raise StreamError(f"line {number}: {error}") from error


def _array(port: Port, values: object) -> NDArray[Any]:
    array = np.array(values)
    with np.errstate(over="ignore", invalid="ignore"):  # the comparison below and the service see to that
        cast = array.astype(NUMPY[port.dtype])
    if "float" not in port.dtype and not np.array_equal(cast, array):
        raise ValueError(f"{port.name}: expected numbers that fit {port.dtype}, came {values}")
    return cast


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, came {text!r}")
    return int(text)


def _temperature(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number, 0 or more, came {text!r}")
    return number

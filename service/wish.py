"""What a call of `Generate` asks for, held against the tokens of the model. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from carousel.contract import Port
from carousel.wire import carousel_pb2 as pb
from service.errors import InvalidInputError
from service.feedback import token_count
from service.sampling import Sampling

MOST_TOKENS = 1 << 16
"""Of a prompt, and to make."""
STOP_TOKENS = 256


@dataclass(frozen=True)
class Wish:
    """A request that can be granted."""

    prompt: Sequence[int]
    max_tokens: int
    stop: frozenset[int]
    sampling: Sampling


def wish_of(request: pb.GenerateRequest, token: Port) -> Wish:
    """Hold a request against the model's tokens.

    Raises:
        InvalidInputError: a number is out of its range.
    """
    for name, count, least, most in (
        ("prompt", len(request.prompt), 1, MOST_TOKENS),
        ("max_tokens", request.max_tokens, 1, MOST_TOKENS),
        ("stop", len(request.stop), 0, STOP_TOKENS),
    ):
        if not least <= count <= most:
            raise InvalidInputError(f"{name}: expected {least} to {most} tokens, got {count}")
    for name, tokens in (("prompt", request.prompt), ("stop", request.stop)):
        for value in (min(tokens), max(tokens)) if tokens else ():
            if not 0 <= value < token_count(token):
                raise InvalidInputError(f"{name}: expected tokens 0 to {token_count(token) - 1}, got {value}")
    temperature = request.temperature if request.HasField("temperature") else 1.0
    top_p = request.top_p if request.HasField("top_p") else 1.0
    if not 0 <= temperature < float("inf"):
        raise InvalidInputError(f"temperature: expected 0 or more, got {temperature}")
    if not 0 <= top_p <= 1:
        raise InvalidInputError(f"top_p: expected 0 to 1, got {top_p}")
    return Wish(
        prompt=request.prompt[:],
        max_tokens=request.max_tokens,
        stop=frozenset(request.stop),
        sampling=Sampling(temperature, request.top_k, top_p, request.seed),
    )

"""The same numbers everywhere: torch, the graph in ONNX Runtime, and the service over gRPC; whole and in chunks."""

import numpy as np
import pytest
import torch

from carousel.client import AsyncClient
from model.tasks.characters import CharacterModel
from tests.models import SYMBOLS, tiny_checkpoint

TOLERANCE = 1e-5
"""Float32 sums in another order: the fused kernels of torch and of ONNX Runtime differ by some 1e-7 a step."""


@pytest.fixture
def model() -> CharacterModel:
    return tiny_checkpoint(hidden=16, layers=2).model


@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [7, 20], list(range(1, 40))])
async def test_a_session_answers_what_torch_computes_however_it_is_cut(
    server, model, cuts: list[int]
) -> None:
    tokens = np.random.default_rng(0).integers(0, len(SYMBOLS), 40)
    with torch.no_grad():
        expected, _ = model(torch.from_numpy(tokens)[None], model.stack.initial_state(1))
    async with AsyncClient(f"127.0.0.1:{server.grpc_port}") as client:
        session = await client.open("tiny")
        answers = [(await session.step(chunk))["logits"] for chunk in np.split(tokens, cuts)]
    np.testing.assert_allclose(np.concatenate(answers), expected[0].numpy(), rtol=TOLERANCE, atol=TOLERANCE)

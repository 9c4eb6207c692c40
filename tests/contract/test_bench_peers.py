"""Clients of the comparison against real servers: what they are told is held against the model, whoever tells it."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from bench.peers.measure import Load, Sample, measure
from bench.peers.messages import ModelInferRequest
from bench.peers.states import States
from bench.run import Target, service
from export.bare import bare_lstm

INPUT_SIZE = 8
LOAD = Load(clients=2, streams=4, sessions=1, seconds=0.3, input_size=INPUT_SIZE)
FORGET_AFTER = 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    file = folder / "bench" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(bare_lstm(INPUT_SIZE, 16, 1).SerializeToString())
    return folder


def model(models: Path) -> Path:
    return models / "bench" / "1" / "model.onnx"


@asynccontextmanager
async def peer(states: States, forgetful: bool) -> AsyncIterator[Target]:
    """A server of the Open Inference Protocol that keeps states, and loses them half-way if it is forgetful."""
    calls: dict[int, int] = {}

    async def infer(message: bytes, _: Any) -> bytes:
        session, x = ModelInferRequest.FromString(message).raw_input_contents
        name = int.from_bytes(session, "little")
        calls[name] = calls.get(name, 0) + 1
        life = forgetful and calls[name] > FORGET_AFTER
        y_BH = states.step([(name, life)], np.frombuffer(x, "<f4")[None])
        return b"\x32" + bytes([len(y_BH.tobytes())]) + y_BH.tobytes()  # raw_output_contents = 6

    server = grpc.aio.server()
    method = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", method)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Target("a peer", "inference", port, os.getpid())
    await server.stop(None)


async def measured(models: Path, forgetful: bool) -> Sample:
    async with peer(States(str(model(models))), forgetful) as target:
        return await asyncio.to_thread(measure, target, LOAD, model(models))


async def test_right_answers_of_a_peer_are_all_checked_and_all_right(models: Path) -> None:
    sample = await measured(models, forgetful=False)
    assert sample.steps_per_second > 0
    assert sample.p50_ms <= sample.p99_ms
    assert sample.checked >= sample.steps_per_second * LOAD.seconds
    assert (sample.wrong, sample.other_bits) == (0, 0)


async def test_a_peer_that_loses_states_without_an_error_is_found_out(models: Path) -> None:
    sample = await measured(models, forgetful=True)
    assert LOAD.streams <= sample.wrong <= sample.checked - LOAD.streams * FORGET_AFTER


@pytest.mark.parametrize("load", [LOAD, replace(LOAD, streams=2, sessions=5)])
def test_the_service_is_checked_in_the_same_way(models: Path, load: Load) -> None:
    with service(models) as serving:
        sample = measure(replace(serving, kind="carousel"), load, model(models))
    assert sample.checked >= sample.steps_per_second * load.seconds > 0
    assert (sample.wrong, sample.other_bits) == (0, 0)
    assert list(sample.server_processes)
    assert len(sample.client_cpu) == load.clients

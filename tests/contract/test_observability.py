"""Health, reflection, metrics and the HTTP port of a running service."""

import asyncio
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from carousel.wire import carousel_pb2 as pb
from service.errors import ServiceError
from service.runtime import CudaOptions
from service.server import start_server
from service.settings import Settings
from service.status import STATUS
from tests.one_step_model import write_one_step
from tests.ports_model import serving
from tests.wire import attach, converse, open_session, steps, tokens


async def fetch(port: int, path: str) -> tuple[int, str]:
    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(get)


async def test_the_http_port_tells_health_readiness_and_what_it_has(server) -> None:
    assert await fetch(server.http_port, "/healthz") == (200, "alive\n")
    assert await fetch(server.http_port, "/readyz") == (200, "ready\n")
    assert (await fetch(server.http_port, "/"))[0] == 404


async def test_every_metric_can_be_parsed_and_moves(server, stub) -> None:
    session = await open_session(stub)
    for _ in range(2):
        await stub.Step(pb.StepRequest(session=session, first_index=0, length=3, inputs=tokens(1, 2, 3)))
    # A stream: its answers are written later than they are made.
    await converse(stub, attach(session), steps([0], [3], [[4]]), steps([0, 0], [4, 5], [[5], [6]]))
    _, page = await fetch(server.http_port, "/metrics")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    expected = {
        ("carousel_steps_total", "tiny/1"): 6,
        ("carousel_chunks_total", "tiny/1"): 4,
        ("carousel_replays_total",): 1,
        ("carousel_joins_total",): 0,
        ("carousel_batch_chunks_count", "tiny/1"): 4,
        ("carousel_batch_chunks_sum", "tiny/1"): 4,
        ("carousel_run_duration_seconds_count", "tiny/1"): 4,
        ("carousel_queue_duration_seconds_count", "tiny/1"): 4,
        ("carousel_answer_duration_seconds_count", "tiny/1"): 3,
        ("carousel_request_duration_seconds_count", "Step"): 2,
        ("carousel_sessions",): 1,
        ("carousel_sessions_opened_total",): 1,
        ("carousel_rows",): 1,
        ("carousel_state_bytes",): 2 * 2 * 16 * 4,
        ("carousel_queued_chunks",): 0,
        ("carousel_ready",): 1,
    }
    assert {key: samples.get(key) for key in expected} == expected
    families = list(text_string_to_metric_families(page))
    assert all(family.name.startswith("carousel_") and family.documentation for family in families)


async def test_grpc_health_and_reflection_answer(server) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "carousel.v1.Carousel"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in reflection.ServerReflectionInfo(iter([request])):
            names = {service.name for service in answer.list_services_response.service}
            assert {"carousel.v1.Carousel", "grpc.health.v1.Health"} <= names


async def test_a_draining_server_is_not_ready_and_refuses_new_sessions(repository) -> None:
    server = await start_server(Settings.load({"models": repository, "grpc_port": 0, "http_port": 0}))
    drained = asyncio.Event()
    server.engine.drain(drained.set)
    await server._readiness.report("draining")
    assert await fetch(server.http_port, "/readyz") == (503, "draining\n")
    assert await fetch(server.http_port, "/healthz") == (200, "alive\n")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        open_ = channel.unary_unary(
            "/carousel.v1.Carousel/Open", pb.OpenRequest.SerializeToString, pb.OpenResponse.FromString
        )
        try:
            await open_(pb.OpenRequest(model="tiny"))
            code = grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            code = error.code()
        assert code == grpc.StatusCode.UNAVAILABLE
    assert await server.stop()


def test_every_domain_error_has_a_status_and_a_reason() -> None:
    def leaves(kind: type) -> set[type]:
        below = kind.__subclasses__()
        return set().union(*map(leaves, below)) if below else {kind}

    assert leaves(ServiceError) == set(STATUS)
    assert {reason for _, reason in STATUS.values()} == set(pb.Reason.values()) - {pb.REASON_UNSPECIFIED}


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """Every line that is logged from level info on."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(wrapper_class=before)


async def test_the_log_says_where_the_service_runs_and_how_each_model_does(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    async with serving(repository):
        pass
    write_one_step(tmp_path / "one" / "1" / "model.onnx")
    monkeypatch.setattr(Settings, "cuda", property(lambda _: CudaOptions(graphs=True)))  # the CPU ignores it
    async with serving(tmp_path, max_batch=2):
        pass

    assert [line["provider"] for line in logged if line["event"] == "serving"] == ["cpu", "cpu"]
    both = {"event": "model_serves", "log_level": "info", "precision": "fp32"}
    assert [line for line in logged if line["event"] == "model_serves"] == [
        {"model": "tiny/1", "form": "rows", **both},
        {"model": "one/1", "form": "arena", "recorded": True, **both},
    ]

"""The server's own loops over real gRPC: what they make is what a client would have made by hand."""

import asyncio

import grpc
import numpy as np
import pytest

from carousel.wire import carousel_pb2 as pb
from service.sampling import Sampling
from tests.loops import by_hand, floats, generated, growth, logits, next_index
from tests.ports_model import save, serving
from tests.wire import V, open_session, tokens

WILD = {"temperature": 1.5, "top_k": 20, "top_p": 0.95, "seed": 7}
PROMPT = [4, 5, 6]


def wish(session: str, **fields) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        **{"session": session, "prompt": PROMPT, "max_tokens": 12, "request_id": session} | WILD | fields
    )


async def refused(call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (generated(call) if hasattr(call, "__aiter__") else call)
    return dict(caught.value.trailing_metadata())["carousel-reason"], caught.value.details()


# -- Generate ---------------------------------------------------------------------------------------------------------


async def test_generated_tokens_are_those_that_a_client_draws_from_the_same_steps(stub) -> None:
    for fields in (WILD, {"temperature": 0.0}, {"seed": 3, "top_k": 5}, {"seed": 2**64 - 1, "top_p": 0.5}):
        mine, own = await open_session(stub), await open_session(stub)
        for session in (mine, own):
            await logits(stub, session, 1, 2)
        expected = await by_hand(stub, mine, PROMPT, 12, Sampling(**fields))
        request = pb.GenerateRequest(session=own, prompt=PROMPT, max_tokens=12, **fields)
        assert await generated(stub.Generate(request)) == expected
        # The last token is told and not fed: both sessions stand at the same step.
        assert await next_index(stub, own) == await next_index(stub, mine) == 2 + 3 + 11
        last = [await logits(stub, session, expected[-1]) for session in (mine, own)]
        np.testing.assert_array_equal(*last)


async def test_the_last_message_says_why_it_is_the_last(stub) -> None:
    session, other = await open_session(stub), await open_session(stub)
    messages = [message async for message in stub.Generate(wish(session))]
    made = [token for message in messages for token in message.tokens]
    assert [m.finish for m in messages[:-1]] == [pb.GenerateResponse.FINISH_UNSPECIFIED] * (len(messages) - 1)
    assert messages[-1].finish == pb.GenerateResponse.MAX_TOKENS
    assert (messages[0].first_index, messages[-1].model, messages[-1].version) == (3, "tiny", "1")
    stop = made[4]
    messages = [message async for message in stub.Generate(wish(other, stop=[stop]))]
    assert messages[-1].finish == pb.GenerateResponse.STOP_TOKEN
    until = made[: made.index(stop) + 1]
    assert [token for message in messages for token in message.tokens] == until
    assert await next_index(stub, other) == 3 + len(until) - 1


async def test_many_generations_and_ordinary_steps_share_batches_and_do_not_change_each_other(
    stub, server
) -> None:
    alone = [
        await generated(stub.Generate(wish(await open_session(stub), seed=seed, request_id="")))
        for seed in range(8)
    ]
    runs = server.metrics.registry.get_sample_value
    before = [runs(f"carousel_batch_chunks_{what}", {"model": "tiny/1"}) for what in ("count", "sum")]
    sessions = [await open_session(stub) for _ in range(8)]
    bystander = await open_session(stub)
    together, *answers = await asyncio.gather(
        asyncio.gather(
            *(
                generated(stub.Generate(wish(session, seed=seed, request_id="")))
                for seed, session in enumerate(sessions)
            )
        ),
        *(logits(stub, bystander, 9) for _ in range(5)),
    )
    after = [runs(f"carousel_batch_chunks_{what}", {"model": "tiny/1"}) for what in ("count", "sum")]
    assert together == alone
    assert len(answers) == 5
    assert after[1] - before[1] == 8 * 12 + 5
    assert after[0] - before[0] < 8 * 12
    assert runs("carousel_generated_tokens_total", {"model": "tiny/1"}) == 2 * 8 * 12


async def test_the_same_tokens_come_again_by_seed_and_index_wherever_a_client_resumes(stub) -> None:
    one, other = await open_session(stub), await open_session(stub)
    whole = await generated(stub.Generate(wish(one, max_tokens=20)))
    first = await generated(stub.Generate(wish(other, max_tokens=8, request_id="first")))
    rest = wish(other, prompt=first[-1:], first_index=3 + 7, max_tokens=12, request_id="second")
    assert first + await generated(stub.Generate(rest)) == whole


async def test_a_prompt_longer_than_a_chunk_is_fed_in_chunks(stub) -> None:
    mine, own = await open_session(stub), await open_session(stub)
    prompt = [1 + k % 20 for k in range(5000)]
    request = pb.GenerateRequest(session=own, prompt=prompt, max_tokens=3, temperature=0.0)
    made = await generated(stub.Generate(request))
    for cut in (slice(0, 2500), slice(2500, 5000)):
        scores = await logits(stub, mine, *prompt[cut])
    assert made[0] == int(np.argmax(scores))
    assert await next_index(stub, own) == 5002


async def test_a_repeated_call_tells_the_same_tokens_and_makes_no_step_twice(stub) -> None:
    session = await open_session(stub)
    first = await generated(stub.Generate(wish(session)))
    assert await generated(stub.Generate(wish(session))) == first
    assert await next_index(stub, session) == 3 + 11
    reason, message = await refused(stub.Generate(wish(session, seed=8)))
    assert (reason, session in message) == ("CONTENT_DIFFERS", True)


async def test_a_call_that_was_cut_off_goes_on_where_it_was_over_another_connection(stub, server) -> None:
    session, other = await open_session(stub), await open_session(stub)
    expected = await generated(stub.Generate(wish(other, max_tokens=1500)))
    request = wish(session, max_tokens=1500)
    for cut_after in (1, 2, 100):
        call = stub.Generate(request)
        had: list[int] = []
        while len(had) < cut_after:
            had += (await call.read()).tokens
        call.cancel()
        assert had == expected[: len(had)]
        while server.engine.queue.chunks:
            await asyncio.sleep(0.01)
        stood = await next_index(stub, session)
        await asyncio.sleep(0.05)
        assert await next_index(stub, session) == stood < 1500
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{server.grpc_port}", [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        again = channel.unary_stream(
            "/carousel.v1.Carousel/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        assert await generated(again(request)) == expected
    assert await next_index(stub, session) == 3 + 1499


async def test_a_call_repeated_while_the_first_runs_reads_along(stub) -> None:
    session = await open_session(stub)
    request = wish(session, max_tokens=300)
    one, other = await asyncio.gather(*(generated(stub.Generate(request)) for _ in range(2)))
    assert one == other
    assert await next_index(stub, session) == 3 + 299


async def test_a_generation_ends_when_somebody_else_steps_its_session(stub) -> None:
    session = await open_session(stub)
    call = stub.Generate(wish(session, max_tokens=60_000))
    await call.read()
    await logits(stub, session, 1)  # without an index: it goes between two chunks
    reason, message = await refused(call)
    assert reason == "INDEX_UNEXPECTED"
    assert "first index: expected" in message


async def test_a_generation_ends_with_its_session_and_says_how(stub) -> None:
    session = await open_session(stub)
    call = stub.Generate(wish(session, max_tokens=60_000))
    await call.read()
    await stub.Close(pb.CloseRequest(session=session))
    assert (await refused(call))[0] == "SESSION_CLOSED"
    # Another life with the same name is another session.
    await stub.Open(pb.OpenRequest(model="tiny", session=session))
    assert (await refused(stub.Generate(wish(session, max_tokens=60_000))))[0] == "SESSION_CLOSED"
    assert await next_index(stub, session) == 0


async def test_a_call_that_was_refused_before_anything_was_fed_may_be_made_again(stub) -> None:
    session = await open_session(stub)
    early = wish(session, first_index=2)
    assert (await refused(stub.Generate(early)))[0] == "INDEX_UNEXPECTED"
    await logits(stub, session, 1, 2)
    assert len(await generated(stub.Generate(early))) == 12


async def test_generating_needs_no_acknowledgement_and_leaves_room_in_the_window(stub) -> None:
    session = await open_session(stub)
    for index in range(8):
        await logits(stub, session, 1, first_index=index)
    assert len(await generated(stub.Generate(wish(session)))) == 12
    described = await stub.Describe(pb.DescribeRequest(session=session))
    assert (described.kept_answers, described.queued_chunks) == (1, 0)


async def test_draining_ends_a_generation_after_its_tokens_were_told(stub, server) -> None:
    session = await open_session(stub)
    call = stub.Generate(wish(session, max_tokens=60_000))
    made = list((await call.read()).tokens)
    drained = asyncio.Event()
    server.engine.drain(drained.set)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generated(call, into=made)
    assert dict(caught.value.trailing_metadata())["carousel-reason"] == "DRAINING"
    await drained.wait()
    # All that was fed was told: the prompt, and every token but the last.
    assert await next_index(stub, session) == 3 + len(made) - 1


async def test_a_planned_restart_in_the_middle_loses_no_token_and_makes_none_twice(
    repository, tmp_path
) -> None:
    expected: list[int] = []
    request = wish("s", max_tokens=400)
    for restarts, state in ((0, tmp_path / "undisturbed"), (3, tmp_path / "disturbed")):
        told: list[int] = []
        for visit in range(restarts + 1):
            async with serving(repository, state_dir=state) as (server, stub):
                if not visit:
                    await stub.Open(pb.OpenRequest(model="tiny", session="s"))
                call = stub.Generate(request)
                if visit == restarts:
                    told = await generated(call)
                else:
                    # This client stops reading, and the server makes more tokens than it hears of.
                    told = list((await call.read()).tokens)
                    while server.metrics.registry.get_sample_value(
                        "carousel_steps_total", {"model": "tiny/1"}
                    ) < 20 * (visit + 1):
                        await asyncio.sleep(0.001)
                assert told == expected[: len(told)] or not expected
                stands = await next_index(stub, "s")
        expected = expected or told
        assert (told, stands) == (expected, 3 + 399)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": []}, "prompt: expected 1 to 65536 tokens, got 0"),
        ({"prompt": [0, V]}, f"prompt: expected tokens 0 to {V - 1}, got {V}"),
        ({"prompt": [-1]}, f"prompt: expected tokens 0 to {V - 1}, got -1"),
        ({"stop": [V]}, f"stop: expected tokens 0 to {V - 1}, got {V}"),
        ({"stop": [1] * 257}, "stop: expected 0 to 256 tokens, got 257"),
        ({"max_tokens": 0}, "max_tokens: expected 1 to 65536 tokens, got 0"),
        ({"max_tokens": 65537}, "max_tokens: expected 1 to 65536 tokens, got 65537"),
        ({"temperature": -0.5}, "temperature: expected 0 or more, got -0.5"),
        ({"temperature": float("nan")}, "temperature: expected 0 or more, got nan"),
        ({"top_p": 1.5}, "top_p: expected 0 to 1, got 1.5"),
        ({"request_id": "x" * 129}, "request id: expected at most 128 characters, got 129"),
    ],
)
async def test_a_wrong_wish_is_refused_with_what_was_expected(stub, fields, message) -> None:
    session = await open_session(stub)
    assert await refused(stub.Generate(wish(session, **fields))) == ("INVALID_INPUT", message)
    assert await next_index(stub, session) == 0


# -- Forecast ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("numbers")
    save(growth(), folder, "growth")
    return folder


async def step(stub, session: str, level, push) -> list[np.ndarray]:
    request = pb.StepRequest(
        session=session, length=len(push), inputs=[floats("level", level), floats("push", push)]
    )
    return [np.frombuffer(tensor.data, "<f4") for tensor in (await stub.Step(request)).outputs]


async def fork(stub, session: str) -> str:
    return (await stub.Fork(pb.ForkRequest(session=session, count=1))).copies[0]


async def test_a_forecast_is_what_forks_answer_that_are_stepped_by_hand(numbers) -> None:
    rng = np.random.default_rng(1)
    async with serving(numbers) as (server, stub):
        session = (await stub.Open(pb.OpenRequest(model="growth"))).session
        # Whole numbers: sums are exact however a chunk is cut into runs.
        await step(stub, session, rng.integers(-9, 9, (5, 2)), rng.integers(-9, 9, 5))
        steps, scenarios, expected = 9, [], []
        for count in (1, 3, 9, 4):
            level, push = rng.integers(-9, 9, (count, 2)), rng.integers(-9, 9, steps)
            scenarios.append(pb.Scenario(inputs=[floats("level", level), floats("push", push)]))
            copy = await fork(stub, session)
            outputs = [await step(stub, copy, level, push[:count])]
            for t in range(count, steps):
                outputs.append(await step(stub, copy, outputs[-1][0][-2:], push[t : t + 1]))
            expected.append([np.concatenate(parts) for parts in zip(*outputs, strict=True)])
        before = await stub.Describe(pb.DescribeRequest(session=session))
        sessions = len(server.engine.table)
        request = pb.ForecastRequest(session=session, steps=steps, scenarios=scenarios)
        answer = await stub.Forecast(request)
        for scenario, arrays in zip(answer.scenarios, expected, strict=True):
            assert [tensor.name for tensor in scenario.outputs] == ["next_level", "total"]
            for tensor, array in zip(scenario.outputs, arrays, strict=True):
                np.testing.assert_array_equal(np.frombuffer(tensor.data, "<f4"), array)
        after = await stub.Describe(pb.DescribeRequest(session=session))
        assert (answer.next_index, answer.model, answer.version) == (5, "growth", "1")
        assert (after.next_index, after.kept_answers) == (before.next_index, before.kept_answers) == (5, 0)
        assert len(server.engine.table) == sessions


async def test_scenarios_advance_side_by_side_and_in_one_run_where_everything_is_given(numbers) -> None:
    async with serving(numbers) as (server, stub):
        session = (await stub.Open(pb.OpenRequest(model="growth"))).session

        def runs() -> float:
            return server.metrics.registry.get_sample_value(
                "carousel_batch_chunks_count", {"model": "growth/1"}
            )

        one = pb.Scenario(inputs=[floats("level", [1, 2]), floats("push", [1.0] * 6)])
        await stub.Forecast(pb.ForecastRequest(session=session, steps=6, scenarios=[one] * 64))
        assert runs() == 6
        given = pb.Scenario(inputs=[floats("level", [1, 2] * 6), floats("push", [1.0] * 6)])
        await stub.Forecast(pb.ForecastRequest(session=session, steps=6, scenarios=[given] * 64))
        assert runs() == 7


async def test_a_model_of_tokens_is_forecast_by_its_most_probable_ones_to_the_bit(stub) -> None:
    session = await open_session(stub)
    await logits(stub, session, 1, 2)
    beginnings = ([3, 4], [5], [6, 7, 8, 9, 10], list(range(9)))
    answer = await stub.Forecast(
        pb.ForecastRequest(
            session=session, steps=9, scenarios=[pb.Scenario(inputs=tokens(*some)) for some in beginnings]
        )
    )
    for some, scenario in zip(beginnings, answer.scenarios, strict=True):
        copy, fed, scores = await fork(stub, session), list(some), []
        for _ in range(9):
            scores.append(await logits(stub, copy, fed[len(scores)]))
            fed += [int(np.argmax(scores[-1]))] if len(fed) == len(scores) else []
        assert scenario.outputs[0].data == np.stack(scores).tobytes()
    assert await next_index(stub, session) == 2


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        ({"steps": 0}, "INVALID_INPUT", "steps: expected 1 to 4096, got 0"),
        ({"steps": 4097}, "INVALID_INPUT", "steps: expected 1 to 4096, got 4097"),
        ({"scenarios": []}, "INVALID_INPUT", "scenarios: expected 1 to 64, got 0"),
        ({"scenarios": [pb.Scenario()] * 65}, "INVALID_INPUT", "scenarios: expected 1 to 64, got 65"),
        ({"scenarios": [pb.Scenario()]}, "INVALID_INPUT", "scenario 0: level: the tensor is missing"),
        (
            {"scenarios": [pb.Scenario(inputs=[floats("level", [1, 1]), floats("push", [1])])]},
            "INVALID_INPUT",
            "scenario 0: push: expected 3 x [] x float32 = 12 bytes, came 4",
        ),
        (
            {"scenarios": [pb.Scenario(inputs=[floats("level", [1] * 8), floats("push", [1] * 3)])]},
            "INVALID_INPUT",
            "scenario 0: level: expected 1 to 3 steps of 8 bytes, came 32 bytes",
        ),
        (
            {"scenarios": [pb.Scenario(inputs=[floats("level", [1, 1]), floats("push", [1, np.nan, 1])])]},
            "INVALID_INPUT",
            "scenario 0: push: expected finite numbers, got nan",
        ),
        (
            {"scenarios": [pb.Scenario(inputs=[floats("pull", [1])])]},
            "INVALID_INPUT",
            "scenario 0: pull: unknown tensor, expected level, push",
        ),
        (
            {"scenarios": [pb.Scenario(inputs=[floats("level", [3e38, 1]), floats("push", [3e38, 0, 0])])]},
            "BACKEND_FAILED",
            "next_level: the answer is not finite and cannot be fed back to level",
        ),
        ({"session": "nobody"}, "SESSION_NOT_FOUND", "session 'nobody' does not exist"),
    ],
)
async def test_a_forecast_that_cannot_be_made_says_why_and_leaves_no_copy(
    numbers, fields, reason, message
) -> None:
    async with serving(numbers) as (server, stub):
        session = (await stub.Open(pb.OpenRequest(model="growth"))).session
        right = pb.Scenario(inputs=[floats("level", [1, 1]), floats("push", [1, 1, 1])])
        request = {"session": session, "steps": 3, "scenarios": [right]} | fields
        assert await refused(stub.Forecast(pb.ForecastRequest(**request))) == (reason, message)
        assert len(server.engine.table) == 1
        assert await next_index(stub, session) == 0


async def test_a_forecast_whose_caller_leaves_is_stopped_and_leaves_no_copy(numbers) -> None:
    async with serving(numbers) as (server, stub):
        session = (await stub.Open(pb.OpenRequest(model="growth"))).session
        await step(stub, session, [1, 1], [1])
        one = pb.Scenario(inputs=[floats("level", [1, 2]), floats("push", [0.0] * 4000)])
        request = pb.ForecastRequest(session=session, steps=4000, scenarios=[one] * 4)
        for wait_s in (0.0, 0.001, 0.005, 0.05):
            call = stub.Forecast(request)
            await asyncio.sleep(wait_s)
            call.cancel()
            await asyncio.sleep(0.05)
            while len(server.engine.table) > 1 or server.engine.queue.chunks:
                await asyncio.sleep(0.01)
        model = server.engine.models.find("growth")
        assert model.rows.used == 1


async def test_a_forecast_must_fit_into_a_message(numbers) -> None:
    async with serving(numbers, max_message_bytes=1 << 16) as (_, stub):
        session = (await stub.Open(pb.OpenRequest(model="growth"))).session
        one = pb.Scenario(inputs=[floats("level", [1, 2]), floats("push", [0.0] * 2000)])
        request = pb.ForecastRequest(session=session, steps=2000, scenarios=[one] * 4)
        reason, message = await refused(stub.Forecast(request))
        assert reason == "INVALID_INPUT"
        assert "expected an answer of at most 65536 bytes" in message


async def test_only_models_that_answer_tokens_with_scores_generate(numbers) -> None:
    async with serving(numbers) as (_, stub):
        session = (await stub.Open(pb.OpenRequest(model="growth"))).session
        reason, message = await refused(stub.Generate(wish(session)))
        assert reason == "MODEL_DIFFERS"
        assert "expected a model with one input, a token" in message
        assert "next_level float32[2] feeding level" in message

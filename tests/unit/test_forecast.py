"""Forecasts against an engine that the test turns: hidden copies are always ended, whatever happens."""

import asyncio

import numpy as np
import pytest

from carousel.contract import Port
from carousel.wire import carousel_pb2 as pb
from service.errors import BackendFailedError, DrainingError, ModelDiffersError, SessionLostError
from service.feedback import Feed, check_feeds, fed_back, feeds_of, token_ports
from service.forecast import Scenario
from service.swap import abandoned
from tests.loops import GROWN, GROWTH, floats
from tests.ports_model import contract
from tests.unit.token_fakes import SYMBOLS, TokenHarness, V
from tests.unit.token_fakes import contract as tokens_contract

TOKEN = Port(name="t", dtype="int64", vocabulary=SYMBOLS)
SCORES = Port(name="s", dtype="float32", shape=(V,), vocabulary=SYMBOLS)
LEVEL = Port(name="level", dtype="float32", shape=(2,))


def ask(h: TokenHarness, steps: int = 20, scenarios: int = 3) -> "asyncio.Task[pb.ForecastResponse]":
    some = [
        pb.Scenario(inputs=[pb.Tensor(name="x", data=np.array([k % V], "<i8").tobytes())])
        for k in range(scenarios)
    ]
    request = pb.ForecastRequest(session="s", steps=steps, scenarios=some)
    return asyncio.create_task(h.calls.Forecast(request, None))


async def stepped() -> TokenHarness:
    """A harness with one session that has a state."""
    h = TokenHarness()
    session = h.open("s")
    h.engine.offer(h.model, _Nobody(), [session.slot], [session.serial], None, [1], None, [bytes(8)])
    await h.rest()
    return h


def nothing_is_left(h: TokenHarness) -> bool:
    return len(h.table) == 1 and h.model.rows.used == 1 and not h.engine.queue.chunks


async def test_wherever_a_forecast_is_cut_off_no_copy_and_no_row_is_left() -> None:
    for turns in range(40):
        h = await stepped()
        asked = ask(h)
        await h.turns(turns)
        asked.cancel()
        await h.rest()
        assert asked.cancelled()
        assert nothing_is_left(h)


async def test_a_failing_run_fails_the_forecast_and_leaves_nothing() -> None:
    h = await stepped()
    asked = ask(h)
    await h.turns(12)
    h.backend.fail_next = True
    await h.rest()
    with pytest.raises(BackendFailedError):
        asked.result()
    assert nothing_is_left(h)


async def test_a_forecast_ends_when_the_server_drains() -> None:
    h = await stepped()
    asked = ask(h)
    await h.turns(12)
    h.engine.drain(lambda: None)
    await h.rest()
    for late in (asked, ask(h)):
        await h.rest()
        with pytest.raises(DrainingError):
            late.result()
    assert nothing_is_left(h)


async def test_a_copy_that_the_server_lost_ends_the_forecast() -> None:
    h = await stepped()
    asked = ask(h)
    await h.turns(12)
    hidden = next(slot for slot in range(4) if h.table.serial[slot] and h.table.owner_of(slot) == "")
    h.engine.end(hidden, SessionLostError)
    await h.rest()
    with pytest.raises(SessionLostError):
        asked.result()
    assert nothing_is_left(h)


async def test_a_forecast_is_of_one_version_though_another_takes_over() -> None:
    undisturbed, h = await stepped(), await stepped()
    expected = ask(undisturbed)
    await undisturbed.rest()
    asked = ask(h)
    while not any(len(run.read_rows) == 3 for run in h.backend.runs):
        await h.turns(1)
    before, _ = h.model, h.swap(factor=33)
    while not asked.done():
        assert before not in abandoned(h.engine)
        await h.turns(1)
    assert abandoned(h.engine) == [before]
    assert asked.result() == expected.result()
    assert asked.result().version == "1"
    later = ask(h)
    await h.rest()
    assert later.result().version == "2"
    assert later.result().scenarios != asked.result().scenarios


def test_each_input_that_is_fed_back_is_taken_as_given_as_far_as_it_goes() -> None:
    names, made = (
        ("a", "b"),
        contract(
            tuple(Port(name=name, dtype="float32") for name in "ab"),
            tuple(Port(name=f"next_{name}", dtype="float32", feeds=name) for name in "ab"),
            format=3,
        ),
    )
    given = {"a": [5], "b": [50, 60, 70]}
    scenario = Scenario(made, feeds_of(made), [floats(name, given[name]) for name in names], 6)
    fed: list[list[float]] = [[], []]
    lengths = []
    while scenario.ready:
        lengths.append(scenario.ready)
        steps = [np.frombuffer(blob, np.float32) for blob in scenario.blobs()]
        for port in (0, 1):
            fed[port] += steps[port].tolist()
        scenario.take([steps[0] + 1, steps[1] + 2])
    assert lengths == [1] * 6
    assert fed == [[5, 6, 7, 8, 9, 10], [50, 60, 70, 72, 74, 76]]
    assert [values.tolist() for values in scenario.outputs] == [
        [6, 7, 8, 9, 10, 11],
        [52, 62, 72, 74, 76, 78],
    ]


@pytest.mark.parametrize(
    ("inputs", "outputs", "feeds"),
    [
        (GROWTH, GROWN, [Feed(0, 0)]),
        ((TOKEN,), (SCORES,), [Feed(0, 0)]),
        # What the contract says counts, and alone.
        ((TOKEN, LEVEL), (SCORES, LEVEL.model_copy(update={"name": "l", "feeds": "level"})), [Feed(1, 1)]),
        # Without a word of the contract: only where there is no choice, and the same vocabulary.
        ((TOKEN, LEVEL), (SCORES,), [Feed(0, 0)]),
        ((TOKEN, TOKEN.model_copy(update={"name": "u"})), (SCORES,), []),
        ((TOKEN,), (SCORES, SCORES.model_copy(update={"name": "r"})), []),
        ((TOKEN.model_copy(update={"vocabulary": SYMBOLS[::-1]}),), (SCORES,), []),
        ((LEVEL,), (LEVEL.model_copy(update={"name": "l"}),), []),
    ],
)
def test_what_is_fed_back_is_what_the_contract_says_or_leaves_no_choice_about(inputs, outputs, feeds) -> None:
    version = 3 if any(port.feeds for port in outputs) else 1
    assert feeds_of(contract(inputs, outputs, format=version)) == feeds


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (GROWTH, GROWN),
        ((TOKEN, LEVEL), (SCORES,)),
        ((LEVEL,), (SCORES,)),
        # Ten scores for seven tokens.
        ((TOKEN,), (Port(name="s", dtype="float32", shape=(10,), feeds="t"),)),
        ((TOKEN,), (Port(name="s", dtype="float32", shape=(2, V), feeds="t"),)),
        ((TOKEN,), (Port(name="s", dtype="int64", shape=(V,), feeds="t"),)),
    ],
)
def test_models_of_other_shapes_do_not_generate(inputs, outputs) -> None:
    version = 3 if any(port.feeds for port in outputs) else 1
    with pytest.raises(ModelDiffersError, match="expected a model with one input, a token"):
        token_ports(contract(inputs, outputs, format=version))


def test_decoders_that_say_what_they_feed_need_no_vocabulary_on_their_scores() -> None:
    scores = Port(name="s", dtype="float16", shape=(V,), feeds="t")
    assert token_ports(contract((TOKEN,), (scores,), format=3)) == (TOKEN, 0)
    assert token_ports(tokens_contract())[0].name == "x"


def test_values_are_fed_back_as_they_are_and_scores_as_the_lowest_of_the_best_tokens() -> None:
    wide = LEVEL.model_copy(update={"dtype": "float64"})
    (made,) = (fed_back(LEVEL, wide, np.array([1.5, -2], np.float32)),)
    assert (made.dtype, made.tolist()) == (np.float64, [1.5, -2])
    assert fed_back(SCORES, TOKEN, np.array([-np.inf, 2, 0, 2, 1, 0, 0], np.float32)).tolist() == 1
    with pytest.raises(BackendFailedError, match="level: the answer is not finite"):
        fed_back(wide, LEVEL, np.array([1e300, 0]))
    with pytest.raises(BackendFailedError, match="s: the answer is not finite"):
        fed_back(SCORES, TOKEN, np.full(V, np.nan, np.float32))


@pytest.mark.parametrize(
    ("output", "fed"),
    [
        (LEVEL, Port(name="x", dtype="float32")),
        (LEVEL.model_copy(update={"shape": (9,)}), TOKEN),
        (TOKEN, TOKEN),
        (SCORES, LEVEL),
    ],
)
def test_what_cannot_be_fed_back_without_a_choice_is_refused(output: Port, fed: Port) -> None:
    fed = fed.model_copy(update={"name": "fed"})
    output = output.model_copy(update={"name": "out", "feeds": "fed"})
    with pytest.raises(ModelDiffersError, match=r"out .* feeds fed"):
        check_feeds(contract((fed,), (output,), format=3), [Feed(0, 0)])


class _Nobody:
    """A caller that is not interested."""

    left = False

    def __init__(self) -> None:
        self.waits: list[object] = []

    def answered(self, answers: object) -> None:
        pass

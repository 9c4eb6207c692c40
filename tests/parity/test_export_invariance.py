"""However the steps of many sessions are cut into chunks and batches, no bit of any result changes."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.invariance import a_step_each, one_after_another, one_step_of_one, shuffled, together
from tests.models import SYMBOLS, tiny_characters

SIZES = [(32, 1), (32, 2), (128, 1), (128, 2)]
STEPS = 12
SESSIONS = 5

# The graph does not change between examples, so a fixture of the module is safe.
EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)

Chunk = tuple[int, int]
"""Session and number of steps."""


class Subject(NamedTuple):
    """A session of onnxruntime, sequences `[5, 12]`, their starts `[5, S]`, and their results in one run each."""

    session: onnxruntime.InferenceSession
    tokens: NDArray[np.int64]
    starts: NDArray[np.float32]
    logits: list[bytes]
    states: list[bytes]


@pytest.fixture(scope="module", params=SIZES, ids=lambda sizes: f"H{sizes[0]}L{sizes[1]}")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    hidden, layers = request.param
    file = tiny_characters(tmp_path_factory.mktemp("models"), hidden=hidden, layers=layers)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    tokens = rng.integers(len(SYMBOLS), size=(SESSIONS, STEPS))
    starts = rng.uniform(-1, 1, (SESSIONS, 2 * hidden * layers)).astype(np.float32)
    whole = [
        run(session, tokens[[row]], np.array([STEPS], dtype=np.int32), starts[[row]])
        for row in range(SESSIONS)
    ]
    return Subject(
        session,
        tokens,
        starts,
        [logits.tobytes() for logits, _ in whole],
        [state.tobytes() for _, state in whole],
    )


def run(
    session: onnxruntime.InferenceSession,
    tokens: NDArray[np.int64],
    lengths: NDArray[np.int32],
    state: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    logits, state = session.run(
        ["logits", "state_out"], {"tokens": tokens, "lengths": lengths, "state": state}
    )
    return logits, state


def played(subject: Subject, batches: list[list[Chunk]]) -> tuple[list[bytes], list[bytes]]:
    """Results of running the batches in turn, each session's state carried."""
    state, position = subject.starts.copy(), [0] * SESSIONS
    logits = [b""] * SESSIONS
    for batch in batches:
        tokens = np.zeros((len(batch), max(steps for _, steps in batch)), dtype=np.int64)
        for slot, (row, steps) in enumerate(batch):
            tokens[slot, :steps] = subject.tokens[row, position[row] : position[row] + steps]
        rows = [row for row, _ in batch]
        lengths = np.array([steps for _, steps in batch], dtype=np.int32)
        outputs, state[rows] = run(subject.session, tokens, lengths, state[rows])
        for slot, (row, steps) in enumerate(batch):
            logits[row] += outputs[slot, :steps].tobytes()
            position[row] += steps
    assert position == [STEPS] * SESSIONS
    return logits, [row.tobytes() for row in state]


@st.composite
def schedules(draw: st.DrawFn) -> list[list[Chunk]]:
    """Batches of 1 to 5 sessions in any order, each with 1 to all of its remaining steps, until all are done."""
    left, batches = dict.fromkeys(range(SESSIONS), STEPS), []
    while left:
        rows = draw(st.lists(st.sampled_from(sorted(left)), min_size=1, unique=True))
        batches.append([(row, draw(st.integers(1, left[row]))) for row in rows])
        for row, steps in batches[-1]:
            left[row] -= steps
        left = {row: steps for row, steps in left.items() if steps}
    return batches


@given(batches=schedules())
@EXAMPLES
def test_any_batches_of_any_chunks_give_the_bits_of_each_sequence_alone(
    subject: Subject, batches: list[list[Chunk]]
) -> None:
    assert played(subject, batches) == (subject.logits, subject.states)


@given(cuts=st.sets(st.integers(1, STEPS - 1)))
@EXAMPLES
def test_any_split_of_a_sequence_into_chunks_gives_the_bits_of_the_whole(
    subject: Subject, cuts: set[int]
) -> None:
    edges = [0, *sorted(cuts), STEPS]
    chunks = [end - start for start, end in pairwise(edges)]

    logits, states = played(subject, [[(row, steps)] for row in range(SESSIONS) for steps in chunks])

    assert (logits, states) == (subject.logits, subject.states)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 16, 17, 63, 64, 65, 256])
def test_a_row_has_the_same_bits_in_a_batch_of_any_size_and_at_any_place(subject: Subject, size: int) -> None:
    rng = np.random.default_rng(size)
    place = int(rng.integers(size))
    tokens = rng.integers(len(SYMBOLS), size=(size, STEPS))
    lengths = rng.integers(1, STEPS + 1, size).astype(np.int32)
    state = rng.uniform(-1, 1, (size, subject.starts.shape[1])).astype(np.float32)
    tokens[place], lengths[place], state[place] = subject.tokens[0], STEPS, subject.starts[0]

    logits, after = run(subject.session, tokens, lengths, state)

    assert logits[place].tobytes() == subject.logits[0]
    assert after[place].tobytes() == subject.states[0]


PLANS = [together, one_after_another, a_step_each, one_step_of_one, shuffled(np.random.default_rng(0), 4)]


@pytest.mark.parametrize("plan", PLANS)
@given(left=st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(any))
@settings(max_examples=25, deadline=None)
def test_the_exporter_s_plans_take_every_step_once(
    plan: Callable[[NDArray[np.int32]], list[Chunk]], left: list[int]
) -> None:
    remaining = np.array(left, dtype=np.int32)
    for _ in range(sum(left)):
        batch = plan(remaining)
        rows = [row for row, _ in batch]
        assert len(set(rows)) == len(rows) >= 1
        for row, steps in batch:
            assert 1 <= steps <= remaining[row]
            remaining[row] -= steps
        if not remaining.any():
            return
    pytest.fail("the plan does not come to an end")

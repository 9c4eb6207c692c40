"""Rows of read-only planes: owned by one session or by several, and by nobody when the last has gone."""

import random

import numpy as np
import pytest

from carousel.contract import Plane
from service.memory import NO_MEMORY, Memory

PLANES = (
    Plane(input="memory", output=None, dtype="float32", size=3),
    Plane(input="mask", output=None, dtype="bool", size=2),
)


def counts(*sessions: int) -> np.ndarray:
    return np.array(sessions, np.int64)


def test_what_is_written_is_read_by_the_names_of_the_graph() -> None:
    memory = Memory(PLANES, 4)
    rows = memory.take(counts(1, 1))
    floats, flags = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[True, False], [False, True]])
    memory.write(rows, (floats, flags))
    feeds = memory.feeds(rows[[1, 0, 1]])
    assert list(feeds) == ["memory", "mask"]
    np.testing.assert_array_equal(feeds["memory"], floats[[1, 0, 1]])
    np.testing.assert_array_equal(feeds["mask"], flags[[1, 0, 1]])
    assert not memory.read(np.array([NO_MEMORY]))[0].any()
    assert memory.row_bytes == 3 * 4 + 2


def test_every_session_can_have_a_row_and_one_more_while_one_is_put_back() -> None:
    memory = Memory(PLANES, 2)
    memory.take(counts(1, 1, 1))
    with pytest.raises(IndexError):
        memory.take(counts(1))


def test_a_row_is_free_when_all_that_share_it_have_gone_and_not_before() -> None:
    chance, memory = random.Random(0), Memory(PLANES, 40)
    shared: dict[int, int] = {}
    for _ in range(2000):
        if shared and chance.random() < 0.6:
            row = chance.choice(list(shared))
            count = chance.randint(1, shared[row])
            memory.give(row, count)
            shared[row] -= count
            if not shared[row]:
                del shared[row]
        elif shared and chance.random() < 0.5:
            row = chance.choice(list(shared))
            memory.share(row, 2)
            shared[row] += 2
        elif len(shared) < 40:
            (row,) = memory.take(counts(3)).tolist()
            assert row != NO_MEMORY
            assert row not in shared
            shared[row] = 3
        assert memory.used == len(shared)

"""Calls that carry a request id are answered, not done again."""

import pytest

from service import replays
from service.errors import ContentDiffersError, InvalidInputError
from service.replays import Replays


def test_the_same_call_gets_the_same_answer_for_an_hour() -> None:
    table: Replays[str] = Replays()
    table.keep("me", "id", b"content", "answer", 0.0)
    assert table.find("me", "id", b"content", replays.REPLAY_S) == "answer"
    assert table.find("me", "id", b"content", replays.REPLAY_S + 1) is None


def test_the_same_id_for_another_call_is_refused() -> None:
    table: Replays[str] = Replays()
    table.keep("me", "id", b"content", "answer", 0.0)
    with pytest.raises(ContentDiffersError):
        table.find("me", "id", b"other", 0.0)
    assert table.find("you", "id", b"other", 0.0) is None


def test_calls_without_an_id_are_never_replayed() -> None:
    table: Replays[str] = Replays()
    table.keep("me", "", b"content", "answer", 0.0)
    assert table.find("me", "", b"content", 0.0) is None


def test_an_id_without_bound_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="request id"):
        Replays[str]().find("me", "x" * 129, b"", 0.0)


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "REPLAYS", 2)
    table: Replays[int] = Replays()
    for k in range(3):
        table.keep("me", f"id{k}", b"", k, 0.0)
    assert [table.find("me", f"id{k}", b"", 0.0) for k in range(3)] == [None, 1, 2]

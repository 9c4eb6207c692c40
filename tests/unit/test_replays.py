"""Calls that carry a request id are answered, not done again."""

import json

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


def test_after_a_restart_the_same_calls_get_the_same_answers_for_the_rest_of_their_hour() -> None:
    before: Replays[int] = Replays()
    before.keep("me", "id", b"content", 7, 100.0)
    after: Replays[int] = Replays()
    after.load(json.loads(json.dumps(before.dump(str, 160.0))), int, 5.0)  # another clock
    assert after.find("me", "id", b"content", 5.0 + replays.REPLAY_S - 60.0) == 7
    assert after.find("me", "id", b"content", 5.1 + replays.REPLAY_S - 60.0) is None
    with pytest.raises(ContentDiffersError):
        after.find("me", "id", b"other", 5.0)


def test_answers_that_name_many_sessions_count_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "REPLAYS", 10)
    before: Replays[int] = Replays()
    for k in range(4):
        before.keep("me", f"id{k}", b"", k, 0.0, names=4)
    after: Replays[int] = Replays()
    after.load(json.loads(json.dumps(before.dump(str, 0.0))), int, 0.0)
    for table in (before, after):
        assert [table.find("me", f"id{k}", b"", 0.0) for k in range(4)] == [None, None, 2, 3]
    after.keep("me", "id4", b"", 4, 0.0, names=3)
    assert [after.find("me", f"id{k}", b"", 0.0) for k in range(2, 5)] == [None, 3, 4]

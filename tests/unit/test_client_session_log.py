"""The log of a session, one rule at a time."""

from carousel.client.session_log import SessionLog

Log = SessionLog[list[str]]


def test_a_chunk_waits_until_the_window_has_room_for_its_answer() -> None:
    log = Log(0, 8, 100)
    for _ in range(3):
        log.add(1, (b"",), 40, [])
    first = log.take()
    assert first is not None
    assert log.take() is not None
    assert log.take() is None
    log.answered(first.first)
    assert log.take() is not None


def test_nothing_is_sent_behind_a_refusal_until_all_is_answered_and_resumed() -> None:
    log = Log(0, 8, 100)
    for _ in range(3):
        log.add(1, (b"",), 1, [])
    assert [log.take() is not None for _ in range(2)] == [True, True]
    log.refused(0)
    assert log.take() is None
    log.resume()
    assert log.take() is None, "an answer is outstanding"
    assert log.unexpected(1, 0) == []
    assert log.settled
    assert log.take() is None
    log.resume()
    taken = [log.take() for _ in range(3)]
    assert [chunk.first for chunk in taken if chunk] == [0, 1, 2]


def test_an_index_unexpected_for_the_oldest_chunk_moves_the_session_there() -> None:
    log = Log(5, 8, 100)
    chunks = [log.add(1, (b"",), 1, []) for _ in range(3)]
    log.take()
    assert log.unexpected(5, 3) == chunks
    assert log.next_index == 3
    assert log.acknowledged == 3


def test_an_index_is_not_used_again_while_its_old_content_is_under_way() -> None:
    log = Log(0, 8, 100)
    for _ in range(2):
        log.add(1, (b"old",), 1, [])
        log.take()
    log.failed(0)
    log.add(1, (b"new",), 1, [])
    assert log.take() is None
    assert log.unexpected(1, 0) == []
    log.resume()
    chunk = log.take()
    assert chunk is not None
    assert (chunk.first, chunk.inputs) == (0, (b"new",))


def test_what_has_failed_is_not_sent_again_after_a_lost_connection() -> None:
    log = Log(0, 8, 100)
    for _ in range(2):
        log.add(1, (b"old",), 1, [])
        log.take()
    log.failed(0)
    log.disconnected()
    assert log.take() is None
    assert log.unanswered == 0


def test_an_answer_that_overtakes_another_is_not_acknowledged_before_it() -> None:
    log = Log(0, 8, 100)
    for _ in range(2):
        log.add(1, (b"",), 1, [])
        log.take()
    log.answered(1)
    assert log.acknowledged == 0
    log.answered(0)
    assert log.acknowledged == 2

"""The sessions of a stream by handle: what is found, and what is told about those that are not."""

import pytest

from carousel.wire.carousel_pb2 import Attach, Reason
from service import handles
from service.errors import (
    InvalidInputError,
    SessionClosedError,
    SessionExpiredError,
    SessionNotFoundError,
)
from service.handles import Handles
from service.repository import ServedModel
from service.rows import RowAllocator
from tests.fakes import FakeBackend, Harness, SessionView, contract


def handles_of(h: Harness, *sessions: SessionView | str) -> Handles:
    attached = Handles(h.engine, "anonymous")
    attach(attached, *sessions)
    return attached


def attach(attached: Handles, *sessions: SessionView | str) -> object:
    names = [one if isinstance(one, str) else one.id for one in sessions]
    return attached.attach(Attach(sessions=names))


def test_handles_are_counted_over_all_attaches() -> None:
    h = Harness()
    one, two, three = [h.open() for _ in range(3)]
    h.send(three, 0, [1, 2])
    h.settle()
    attached = Handles(h.engine, "anonymous")
    answers = [
        attached.attach(Attach(sessions=names)) for names in ([one.id, "nobody"], [], [three.id, two.id])
    ]
    assert [answer.first_handle for answer in answers] == [0, 2, 2]
    assert [list(answer.next_indices) for answer in answers] == [[0, 0], [], [2, 0]]
    assert [[(e.position, e.reason) for e in answer.errors] for answer in answers] == [
        [(1, Reason.SESSION_NOT_FOUND)],
        [],
        [],
    ]
    slots, serials, model = attached.look_up([3, 0, 2])
    assert slots == [two.slot, one.slot, three.slot]
    assert serials == [two.serial, one.serial, three.serial]
    assert model is h.model


def test_one_session_may_have_many_handles() -> None:
    h = Harness()
    session = h.open()
    slots, serials, _ = handles_of(h, session, session).look_up([0, 1])
    assert slots == [session.slot] * 2
    assert serials == [session.serial] * 2


def test_a_handle_that_was_never_given_finds_nobody_and_says_how_many_there_are() -> None:
    h = Harness()
    session = h.open()
    attached = handles_of(h, session, session)
    _, serials, model = attached.look_up([0, 2, 1 << 31])
    assert serials[0] == session.serial
    assert not set(serials[1:]) & set(h.table.serial.tolist())
    assert model is h.model
    assert "one of the 2 attached on this stream, got 2" in str(attached.why_not(2))
    assert isinstance(attached.why_not(2), InvalidInputError)


def test_a_stream_without_any_session_has_no_model_for_its_frames() -> None:
    h = Harness()
    assert handles_of(h).look_up([0])[2] is None
    assert handles_of(h, "nobody").look_up([0])[2] is None
    assert handles_of(h, "nobody").look_up([1])[2] is None


def test_a_session_that_could_not_be_attached_says_why() -> None:
    h = Harness()
    closed = h.open()
    closed.end(SessionClosedError)
    attached = handles_of(h, "nobody", closed.id, h.open())
    _, serials, model = attached.look_up([0, 1, 2])
    assert not set(serials[:2]) & set(h.table.serial.tolist())
    assert model is h.model
    assert isinstance(attached.why_not(0), SessionNotFoundError)
    assert isinstance(attached.why_not(1), SessionClosedError)


def test_an_unusable_handle_stays_unusable_although_the_session_is_there_by_now() -> None:
    h = Harness()
    attached = handles_of(h, "late")
    session = h.open("late")
    assert attached.look_up([0])[1] != [session.serial]
    assert isinstance(attached.why_not(0), SessionNotFoundError)
    attach(attached, session)
    assert attached.look_up([1])[1] == [session.serial]


def test_a_session_that_ended_since_says_how() -> None:
    h = Harness()
    session = h.open()
    attached = handles_of(h, session)
    h.now = 5.0
    session.end(SessionExpiredError)
    h.now = 8.0
    assert str(attached.why_not(0)).startswith(f"session '{session.id}' expired 3 s ago")


def test_an_id_that_was_opened_again_belongs_to_another_session() -> None:
    h = Harness()
    session = h.open("mine")
    attached = handles_of(h, session)
    session.end(SessionClosedError)
    again = h.open("mine")
    assert again.slot == session.slot
    _, serials, _ = attached.look_up([0])
    assert serials != [again.serial]
    error = attached.why_not(0)
    assert isinstance(error, SessionClosedError)
    assert "a new one has its id; attach again" in str(error)
    attach(attached, again)
    assert attached.look_up([1])[1] == [again.serial]


def test_what_is_told_again_and_again_gathers_no_tracebacks() -> None:
    h = Harness()
    session = h.open()
    attached = handles_of(h, session, "nobody")
    session.end(SessionClosedError)
    for handle in (0, 1):
        told = [attached.why_not(handle) for _ in range(3)]
        assert len({id(error) for error in told}) == 3
        for error in told:
            with pytest.raises(type(error)):
                raise error
        assert attached.why_not(handle).__traceback__ is None
    assert all(error.__traceback__ is None for error in attached._errors.values())


def test_a_stream_has_so_many_handles_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "STREAM_HANDLES", 3)
    h = Harness()
    attached = handles_of(h, "a", "b")
    with pytest.raises(InvalidInputError, match="at most 3 handles"):
        attach(attached, "c", "d")
    attach(attached, "c")
    with pytest.raises(InvalidInputError, match="at most 3 handles"):
        attach(attached, "d")


# -- two models ---------------------------------------------------------------------------------------------------


def add_model(h: Harness) -> None:
    """Serve a second model beside the first, as far as looking up needs it."""
    second = ServedModel("other", "2", contract(), FakeBackend(2, 1), RowAllocator(2), 1)
    h.engine.served = [h.model, second]


def open_other(h: Harness) -> SessionView:
    return SessionView(h.engine, h.table.open("anonymous", "", 1, 10.0, 0.0))


@pytest.mark.parametrize("beside", [[], ["nobody"]])
def test_a_frame_has_sessions_of_one_model(beside: list[str]) -> None:
    h = Harness()
    add_model(h)
    attached = handles_of(h, h.open(), open_other(h), h.open(), *beside)
    assert attached.look_up([0, 2])[2] is h.engine.served[0]
    assert attached.look_up([1])[2] is h.engine.served[1]
    for frame in ([0, 1], [0, 1, 99]):
        with pytest.raises(InvalidInputError, match="sessions of one model, got fake/1, other/2"):
            attached.look_up(frame)


@pytest.mark.parametrize("beside", [[], [99]])
def test_a_session_that_has_ended_lends_its_model_to_no_frame(beside: list[int]) -> None:
    h = Harness()
    add_model(h)
    session, other = h.open(), open_other(h)
    attached = handles_of(h, session, other)
    session.end(SessionClosedError)
    assert attached.look_up([0, 1, *beside])[2] is h.engine.served[1]
    assert attached.look_up([0, *beside])[2] is None
    again = open_other(h)
    assert again.slot == session.slot, "whoever has its slot now lends it no model either"
    assert attached.look_up([0, *beside])[2] is None

"""What touches rows between two runs has its turn, and leaves the runs theirs."""

from tests.fakes import Harness


def test_a_batch_runs_between_any_two_errands() -> None:
    h = Harness()
    order: list[str] = []
    for name in ("first", "second"):
        h.engine.errand(lambda: lambda: None, lambda _, name=name: order.append(name))
    session = h.open()
    asked = h.send(session, 0, [1])
    while h.turn():
        if asked.outcomes and "run" not in order:
            order.append("run")
    assert order == ["first", "run", "second"]


def test_an_errand_has_its_turn_though_the_batch_before_it_came_to_nothing() -> None:
    h = Harness()
    order: list[str] = []
    asked = h.send(h.open(), 0, [1])
    for name in ("first", "second"):
        h.engine.errand(lambda: lambda: None, lambda _, name=name: order.append(name))
    asked.leave()
    h.settle()
    assert order == ["first", "second"]


def test_what_cannot_start_is_told_so_and_the_next_has_its_turn() -> None:
    h = Harness()
    told: list[object] = []
    h.engine.errand(lambda: {}["nothing"], told.append)
    h.engine.errand(lambda: lambda: 7, told.append)
    h.settle()
    assert isinstance(told[0], KeyError)
    assert told[1:] == [7]


def test_a_drained_engine_has_done_all_errands() -> None:
    h = Harness()
    order: list[str] = []
    h.engine.drain(lambda: order.append("drained"))
    h.engine.errand(lambda: lambda: None, lambda _: order.append("errand"))
    h.settle()
    assert order == ["errand", "drained"]

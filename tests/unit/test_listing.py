"""Listing: every session once, in the order of opening, whatever happens between pages."""

import asyncio
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import listing
from service.errors import InvalidInputError, SessionClosedError
from service.listing import Wanted, page
from service.sessions import HIDDEN, SessionTable

ALL = Wanted(None, "", "")


def ids(table: SessionTable, slots: list[int]) -> list[str]:
    return [table.id_of(slot) for slot in slots]


async def listed(table: SessionTable, wanted: Wanted, models: list[int], size: int) -> list[str]:
    """All pages."""
    found, token = list[str](), ""
    while True:
        one = await page(table, wanted, models, wanted.after(token), size)
        assert len(one.slots) <= size
        alive = table.serial[one.slots] == one.serials
        found += ids(table, np.array(one.slots, np.int64)[alive].tolist())
        if not one.last:
            return found
        token = wanted.token(one.last)


def busy_table(seed: int) -> tuple[SessionTable, list[tuple[str, str, int]]]:
    """Sessions that came and went, and those that stay: owner, id, model, in the order of opening."""
    rng, table, alive = random.Random(seed), SessionTable(300), list[tuple[str, str, int]]()
    for k in range(400):
        if alive and rng.random() < 0.4:
            owner, session_id, _ = alive.pop(rng.randrange(len(alive)))
            table.remove(table.find(owner, session_id, 0.0), SessionClosedError, 0.0)
        one = (rng.choice(["me", "you", HIDDEN]), f"{rng.choice('ab')}{k}", rng.randrange(2))
        table.open(*one, 10.0, 0.0)
        alive.append(one)
    return table, alive


@pytest.mark.parametrize("seed", range(20))
async def test_pages_hold_each_wanted_session_once_in_the_order_of_opening(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCAN_SLOTS", 16)
    table, alive = busy_table(seed)
    for owner in ("me", None, "nobody"):
        for prefix in ("", "a", "a1"):
            for models in ([], [1]):
                wanted = Wanted(owner, "m" if models else "", prefix)
                expected = [
                    one[1]
                    for one in alive
                    if one[0] != HIDDEN
                    and owner in (None, one[0])
                    and one[1].startswith(prefix)
                    and (not models or one[2] in models)
                ]
                for size in (1, 7, 1000):
                    assert await listed(table, wanted, models, size) == expected


async def test_a_full_last_page_says_that_it_is_the_last() -> None:
    table = SessionTable(10)
    for k in range(4):
        table.open("me", f"{k}", 0, 10.0, 0.0)
    assert (await page(table, ALL, [], 0, 4)).last == 0
    assert (await page(table, ALL, [], 0, 3)).last == 3


async def test_sessions_that_come_and_go_while_it_is_listed_hide_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "SCAN_SLOTS", 4)
    table = SessionTable(100)
    for k in range(40):
        table.open("me", f"{k}", 0, 10.0, 0.0)

    async def others() -> None:
        for k in range(0, 40, 2):
            table.remove(table.find("me", f"{k}", 0.0), SessionClosedError, 0.0)
            table.open("me", f"new {k}", 0, 10.0, 0.0)
            await asyncio.sleep(0)

    found, _ = await asyncio.gather(listed(table, ALL, [], 5), others())
    assert [one for one in found if not one.startswith("new") and int(one) % 2] == [
        f"{k}" for k in range(1, 40, 2)
    ]
    assert len(set(found)) == len(found)


async def test_the_loop_turns_to_others_while_many_sessions_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "SCAN_SLOTS", 10)
    table, turns = SessionTable(100), 0
    for k in range(100):
        table.open("me", f"{k}", 0, 10.0, 0.0)
    looking = asyncio.ensure_future(page(table, ALL, [], 0, 5))
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 9


@given(serial=st.integers(1, (1 << 63) - 1), owner=st.none() | st.text(), prefix=st.text())
def test_a_token_says_where_to_go_on(serial: int, owner: str | None, prefix: str) -> None:
    wanted = Wanted(owner, "m", prefix)
    assert wanted.after(wanted.token(serial)) == serial
    with pytest.raises(InvalidInputError, match="page_token"):
        wanted._replace(prefix=prefix + "x").after(wanted.token(serial))


@given(st.text(max_size=40))
def test_a_token_that_nobody_gave_is_refused(token: str) -> None:
    if token:
        with pytest.raises(InvalidInputError, match="page_token"):
            ALL.after(token)

"""Who may call, apart from gRPC: the file as it changes, and calls that outlive their credentials."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from service.access import Access
from service.errors import UnauthenticatedError
from service.identity import ANONYMOUS, Identity
from service.tokens import hash_of

ALICE = f'[alice]\ntokens = ["{hash_of("one")}"]\n'
BOB = f'[bob]\ntokens = ["{hash_of("two")}"]\n'


def bearer(token: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "x"), ("authorization", f"Bearer {token}")]


def named(*names: str, common: str = "") -> dict[str, list[bytes]]:
    return {
        "x509_subject_alternative_name": [name.encode() for name in names],
        "x509_common_name": [common.encode()] if common else [],
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "identities.toml"
    path.write_text(ALICE + BOB)
    return path


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """What is logged."""
    with structlog.testing.capture_logs() as lines:
        monkeypatch.setattr(
            "service.access._log", structlog.wrap_logger(None, wrapper_class=structlog.BoundLogger)
        )
        yield lines


async def look_twice(access: Access) -> None:
    """The first look sees a change, the second that it is over."""
    await access.look_again()
    await access.look_again()


def owner(access: Access, token: str | None, peer: dict[str, list[bytes]] | None = None) -> str:
    return access.identify(bearer(token) if token else [], peer or {})[0].owner


def test_without_a_file_everybody_is_the_anonymous_administrator() -> None:
    access = Access(None)
    assert access.identify(bearer("anything"), {})[0] is ANONYMOUS
    assert not access.configured
    assert access.sessions_of("anonymous") is None


async def test_a_change_holds_once_the_file_has_stayed_the_same_for_one_interval(file: Path) -> None:
    access = Access(file)
    assert owner(access, "one") == "alice"
    file.write_text(ALICE.replace("alice", "ali"))  # somebody is writing
    await access.look_again()
    assert owner(access, "one") == "alice"
    file.write_text(ALICE.replace("alice", "alicia"))
    await access.look_again()
    assert owner(access, "one") == "alice"
    await access.look_again()
    assert owner(access, "one") == "alicia"


async def test_a_file_that_is_replaced_by_another_of_the_same_size_and_time_is_read(file: Path) -> None:
    access, before = Access(file), file.stat()
    new = file.with_suffix(".new")
    new.write_text(file.read_text().replace("alice", "carol"))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(file)
    await look_twice(access)
    assert owner(access, "one") == "carol"


@pytest.mark.parametrize("content", ["", "[alice", ALICE + ALICE.replace("alice", "eve"), None])
async def test_a_broken_or_missing_file_leaves_everything_as_it_was_and_says_so_once(
    file: Path, lines: list[dict[str, object]], content: str | None
) -> None:
    access = Access(file)
    file.unlink() if content is None else file.write_text(content)
    for _ in range(3):
        await look_twice(access)
    assert owner(access, "one") == "alice"
    assert access.stale
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("identities_refused", "error")
    assert str(file) in str(line["error"])
    assert "\n" not in str(line["error"])
    file.write_text(BOB)
    await look_twice(access)
    assert not access.stale
    with pytest.raises(UnauthenticatedError):
        owner(access, "one")


async def test_a_call_that_lasts_ends_when_its_credentials_are_taken_back(file: Path) -> None:
    access = Access(file)

    async def last(token: str) -> str:
        identity, credentials = access.identify(bearer(token), {})
        task = asyncio.current_task()
        assert task is not None
        try:
            with access.while_known(credentials, identity.owner):
                await asyncio.get_running_loop().create_future()
        except UnauthenticatedError:
            assert not task.cancelling(), "it goes on like a call that was refused"
            raise
        return "never"

    alice, bob, cancelled = (asyncio.create_task(last(token)) for token in ("one", "two", "one"))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    file.write_text(ALICE.replace("alice", "somebody_else") + BOB + "admin = true\n")
    await look_twice(access)
    with pytest.raises(UnauthenticatedError, match="taken back"):
        await alice
    assert not bob.done()
    file.write_text(ALICE)
    await look_twice(access)
    with pytest.raises(UnauthenticatedError):
        await bob
    assert not access._calls
    assert not access._revoked


async def test_an_account_is_one_for_all_calls_and_outlives_a_change_of_its_quota(file: Path) -> None:
    access = Access(file)

    def identity() -> Identity:
        return access.identify(bearer("one"), {})[0]

    account = identity().account
    assert account.quota is None
    account.queued = 3
    file.write_text(ALICE + "queued_chunks = 5\nsessions = 7\n")
    await look_twice(access)
    assert identity().account is account
    assert account.quota is not None
    assert account.quota.queued_chunks == 5
    assert (access.sessions_of("alice"), access.sessions_of("bob")) == (7, None)
    file.write_text(BOB)
    await look_twice(access)
    file.write_text(ALICE)
    await look_twice(access)
    assert identity().account is account
    assert account.quota is None


@pytest.mark.parametrize(
    ("token", "peer", "whose"),
    [
        (None, named("a.example"), "alice"),
        (None, named("other", "a.example"), "alice"),
        (None, named(common="Alice"), "alice"),
        (None, named("a.example", common="Alice"), "alice"),
        ("one", named("a.example"), "alice"),
        ("one", {}, "alice"),
        ("two", {}, "bob"),
        ("two", named("nobody.example"), "bob"),
        (None, named("nobody.example"), "came nobody's certificate"),
        (None, named("a.example", common="Carol"), "names of several owners"),
        ("one", named("nobody.example"), "expected those of one owner"),
        ("one", named("c.example"), "expected those of one owner"),
        ("two", named("a.example"), "expected those of one owner"),
        ("three", named("a.example"), "nobody has this token"),
    ],
)
def test_token_and_certificate_name_one_owner_or_nobody(
    file: Path, token: str | None, peer: dict[str, list[bytes]], whose: str
) -> None:
    carol = '[carol]\ncertificates = ["c.example", "Carol"]\n'
    file.write_text(ALICE + 'certificates = ["a.example", "Alice"]\n' + BOB + carol)
    access = Access(file)
    if whose in ("alice", "bob"):
        assert owner(access, token, peer) == whose
    else:
        with pytest.raises(UnauthenticatedError, match=whose):
            owner(access, token, peer)

"""The file of identities: what it says, and the one line that names a mistake in it."""

from pathlib import Path

import pytest

from service.errors import InvalidInputError
from service.identities import Identities, IdentitiesError, check_owner, load_identities
from service.quotas import Quota
from service.tokens import digest_of, hash_of


def load(tmp_path: Path, content: str) -> Identities:
    file = tmp_path / "identities.toml"
    file.write_text(content)
    return load_identities(file)


def test_everything_that_an_owner_may_have_is_read(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        f"""
        [alice]
        tokens = ["{hash_of("one")}", "{hash_of("two")}"]
        certificates = ["alice.example.org", "Alice"]
        admin = true
        sessions = 0
        queued_chunks = 2
        steps_per_s = 3
        ["the plant, hall 2"]
        tokens = []
        """,
    )
    assert [found.owner_of_token(digest_of(token)) for token in ("one", "two", "three")] == [
        "alice",
        "alice",
        None,
    ]
    assert found.owners_of_names(["x", "Alice", "alice.example.org"]) == {"alice"}
    alice, plant = found.owners["alice"], found.owners["the plant, hall 2"]
    assert (alice.admin, alice.quota) == (True, Quota(0, 2, 3.0))
    assert (plant.admin, plant.quota, plant.tokens) == (False, None, ())


HASH = hash_of("x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a table for each owner, came none"),
        ('tokens = ["hunter2"]', "tokens: expected a table [tokens]"),
        ('alice = "hunter2"', "alice: expected a table [alice]"),
        ("[alice", "Expected ']' at the end of a table declaration"),
        ("[alice]\ntoken = 'hunter2'", "alice.token: unknown key"),
        ("[alice]\ntokens = 'hunter2'", "alice.tokens: expected a list of hashes"),
        ("[alice]\ntokens = ['hunter2']", "alice.tokens: expected sha256: and 64 hexadecimal digits"),
        ("[alice]\ntokens = [['hunter2']]", "alice.tokens: expected sha256: and 64 hexadecimal digits"),
        (f"[a]\ntokens = ['{HASH}']\n[b]\ntokens = ['{HASH}']", "a and b have the same token"),
        ("[a]\ncertificates = ['n']\n[b]\ncertificates = ['n']", "a and b have the same certificate"),
        ("[alice]\nadmin = 'yes'", "alice.admin: Input should be a valid boolean"),
        ("[alice]\nsessions = -1", "alice.sessions: "),
        ("[alice]\nsessions = 1.5", "alice.sessions: "),
        ("[alice]\nqueued_chunks = 0", "alice.queued_chunks: "),
        ("[alice]\nsteps_per_s = 0", "alice.steps_per_s: "),
        ("[alice]\nsteps_per_s = inf", "alice.steps_per_s: "),
        ("[alice]\nsteps_per_s = nan", "alice.steps_per_s: "),
        ("['']\n", "owner id: expected a name, came nothing"),
        ('["a\\nb"]\n', "owner id: expected printable characters"),
        (f"[{'a' * 129}]\n", "owner id: expected at most 128 characters, got 129"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file_and_never_a_token(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(IdentitiesError) as caught:
        load(tmp_path, content)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'identities.toml'}: ")
    assert message in text
    assert "\n" not in text
    assert "hunter2" not in text


def test_bytes_that_are_no_text_are_a_mistake_too(tmp_path: Path) -> None:
    (tmp_path / "identities.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(IdentitiesError):
        load_identities(tmp_path / "identities.toml")


def test_every_known_hash_is_compared_whichever_matches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashes = ", ".join(f'"{hash_of(str(k))}"' for k in range(20))
    found = load(tmp_path, f"[alice]\ntokens = [{hashes}]")
    compared: list[bytes] = []

    def watching(known: bytes, came: bytes) -> bool:
        compared.append(known)
        return known == came

    monkeypatch.setattr("service.identities.hmac.compare_digest", watching)
    for token in ("0", "19", "nobody's"):
        compared.clear()
        found.owner_of_token(digest_of(token))
        assert compared == [digest_of(str(k)) for k in range(20)]


def test_the_server_keeps_the_empty_name_for_itself() -> None:
    check_owner("alice")
    with pytest.raises(InvalidInputError, match="came nothing"):
        check_owner("")

"""Tokens and their hashes."""

import hashlib
import re

import pytest

from service.tokens import digest_of, hash_of, new_token, read_hash


def test_no_token_is_made_twice_and_each_has_256_random_bits() -> None:
    made = [new_token() for _ in range(1000)]
    assert len(set(made)) == 1000
    # 43 characters of 6 bits hold 256: every one of them differs between tokens.
    assert all(re.fullmatch(r"carousel_[A-Za-z0-9_-]{43}", token) for token in made)
    assert all(len(set(column)) > 10 for column in zip(*(token[9:] for token in made), strict=True))


def test_the_hash_is_plain_sha_256_and_is_read_back() -> None:
    assert hash_of("test") == "sha256:" + hashlib.sha256(b"test").hexdigest()
    assert read_hash(hash_of("test")) == digest_of("test") == hashlib.sha256(b"test").digest()


@pytest.mark.parametrize(
    "wrong",
    ["a-secret-token", "sha256:", "sha256:12", "sha256:" + "zz" * 32, "sha256:" + "00" * 33, 5, None, ["x"]],
)
def test_what_is_no_hash_is_refused_without_telling_what_came(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected sha256: and 64 hexadecimal digits") as caught:
        read_hash(wrong)
    assert "secret" not in str(caught.value)

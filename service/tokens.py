"""Bearer tokens: made once, shown once, and recognised by their hash ever after.

A token is 256 random bits. Nobody can try them all, so one plain SHA-256 is enough: salts and slow hashes protect
passwords, which people choose, and would cost every call what they cost an attacker.
"""

import hashlib
import secrets

TOKEN_BYTES = 32
PREFIX = "carousel_"
"""Lets people, and programs that look for leaked secrets, see what it is."""
MARK = "sha256:"
"""What a hash begins with."""


def new_token() -> str:
    """A token that nobody else will ever have."""
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> bytes:
    """SHA-256 of a token, 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def hash_of(token: str) -> str:
    """The same as it stands in the file of identities: `sha256:` and 64 hexadecimal digits."""
    return MARK + digest_of(token).hex()


def read_hash(text: object) -> bytes:
    """The digest that a line of the file stands for.

    Raises:
        ValueError: it is no hash. What came is not told: it may be a token, put there by mistake.
    """
    if isinstance(text, str) and text.startswith(MARK):
        try:
            digest = bytes.fromhex(text.removeprefix(MARK))
        except ValueError:
            digest = b""
        if len(digest) == hashlib.sha256().digest_size:
            return digest
    raise ValueError(f"expected {MARK} and 64 hexadecimal digits, as `carousel token` prints them")

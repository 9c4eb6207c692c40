"""The file of identities: a table for each owner, with what proves it and what it may use.

[alice]
tokens = ["sha256:9f86d081..."]      # `carousel token alice` makes one
certificates = ["alice.example.org"]  # alternative or common names, for mutual TLS
admin = true
sessions = 1000
queued_chunks = 256
steps_per_s = 50000
"""

import hmac
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from carousel.errors import CarouselError
from carousel.mistakes import first_mistake
from service.errors import InvalidInputError
from service.quotas import Quota
from service.sessions import check_id
from service.tokens import read_hash

Proof = TypeVar("Proof", bytes, str)


class IdentitiesError(CarouselError):
    """The file of identities cannot be used; says where."""


def _digests(value: object) -> tuple[bytes, ...]:
    """In words of our own: pydantic's would show what came, which may be a token, put there by mistake."""
    if not isinstance(value, list):
        raise ValueError("expected a list of hashes")  # noqa: TRY004 - pydantic wants this one
    return tuple(read_hash(text) for text in value)


class Owner(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tokens: Annotated[tuple[bytes, ...], BeforeValidator(_digests)] = ()
    """Their digests."""
    certificates: Annotated[tuple[str, ...], Field(strict=False)] = ()
    admin: bool = False
    sessions: Annotated[int, Field(ge=0)] | None = None
    queued_chunks: Annotated[int, Field(ge=1)] | None = None
    steps_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def quota(self) -> Quota | None:
        """None: it has none."""
        quota = Quota(self.sessions, self.queued_chunks, self.steps_per_s)
        return None if quota == Quota() else quota


class Identities:
    """All owners, and what proves each. It never changes: another file makes another one."""

    def __init__(self, owners: Mapping[str, Owner]) -> None:
        self.owners = owners
        self._tokens = _unique("token", {name: owner.tokens for name, owner in owners.items()})
        self._names = _unique("certificate", {name: owner.certificates for name, owner in owners.items()})

    def owner_of_token(self, digest: bytes) -> str | None:
        """Whose token has this digest.

        It is compared with every known one, in the same time wherever they differ: how long an answer takes tells
        nothing of the tokens.
        """
        found = None
        for known, owner in self._tokens.items():
            if hmac.compare_digest(known, digest):
                found = owner
        return found

    def owners_of_names(self, names: Collection[str]) -> set[str]:
        """Whose certificate has one of these names."""
        return {self._names[name] for name in names if name in self._names}


_FILE = TypeAdapter(dict[str, Owner])


def load_identities(path: Path) -> Identities:
    """Read the file.

    Raises:
        IdentitiesError: one line that says where the mistake is, and never what a token was.
        OSError: it cannot be read.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text())
        _check_tables(tables)
        return Identities(_FILE.validate_python(tables))
    except ValidationError as error:
        raise IdentitiesError(f"{path}: {first_mistake(error)}") from error
    except (ValueError, InvalidInputError) as error:
        raise IdentitiesError(f"{path}: {error}") from error


def check_owner(name: str) -> None:
    """Refuse a name that would spoil a log line, or that the server keeps for itself.

    Raises:
        InvalidInputError: says what was expected.
    """
    check_id("owner", name)
    if not name:
        raise InvalidInputError("owner id: expected a name, came nothing")


def _check_tables(tables: Mapping[str, Any]) -> None:
    if not tables:  # as a file is that is being written: nobody wants a server that nobody may call
        raise ValueError("expected a table for each owner, came none")
    for name, table in tables.items():
        check_owner(name)
        if not isinstance(table, dict):
            raise ValueError(f"{name}: expected a table [{name}]")  # noqa: TRY004 - a mistake in a file


def _unique(what: str, proofs: Mapping[str, Collection[Proof]]) -> dict[Proof, str]:
    """Who has each; the same proof for two owners would prove nothing."""
    owner_of: dict[Proof, str] = {}
    for owner, some in proofs.items():
        for proof in some:
            if owner_of.setdefault(proof, owner) != owner:
                raise ValueError(f"{owner_of[proof]} and {owner} have the same {what}; expected one owner")
    return owner_of

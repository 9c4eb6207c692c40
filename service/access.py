"""Who may call: what a call's token and certificate say, held against the file of identities as it is now."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from carousel.errors import CarouselError
from service.errors import UnauthenticatedError
from service.identities import Identities, load_identities
from service.identity import ANONYMOUS, Identity
from service.quotas import Account
from service.tokens import digest_of

SCHEME = "bearer "
_NAMES = ("x509_subject_alternative_name", "x509_common_name")

_log = structlog.get_logger(__name__)

Metadata = Iterable[tuple[str, str | bytes]]
AuthContext = Mapping[str, Iterable[bytes]]


class Credentials(NamedTuple):
    """What a call brings to prove who it is."""

    digest: bytes | None
    """Of its token."""
    names: frozenset[str]
    """Of its certificate, which gRPC has held against the authority."""


class Access:
    """Tells owners by their credentials, and ends long calls whose credentials are taken back.

    Args:
        file: The identities; None: everybody is the anonymous owner.

    Raises:
        IdentitiesError, OSError: the file cannot be used.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._identities = Identities({})
        self._accounts: dict[str, Account] = {}
        self._calls: dict[asyncio.Task[object], tuple[Credentials, str]] = {}
        self._revoked: set[asyncio.Task[object]] = set()
        self._seen = self._read = self._stamp()
        self.stale = False
        """The file cannot be used, and what it said before still holds."""
        if file is not None:
            self._take(load_identities(file))

    @property
    def configured(self) -> bool:
        """Whether callers have to say who they are."""
        return self._file is not None

    def sessions_of(self, owner: str) -> int | None:
        """Most sessions of an owner; None: as many as the server takes."""
        account = self._accounts.get(owner)
        return None if account is None or account.quota is None else account.quota.sessions

    def identify(self, metadata: Metadata, peer: AuthContext) -> tuple[Identity, Credentials]:
        """Who makes a call.

        Args:
            metadata: What the call came with.
            peer: What is known of its connection.

        Raises:
            UnauthenticatedError: nobody that is known. It never says what came.
        """
        if self._file is None:
            return ANONYMOUS, _NOTHING
        credentials = Credentials(_digest(metadata), _names(peer))
        owner = self._owner_of(credentials)
        return Identity(owner, self._identities.owners[owner].admin, self._accounts[owner]), credentials

    @contextmanager
    def while_known(self, credentials: Credentials, owner: str) -> Iterator[None]:
        """Make the call under way, which may last, end when its credentials are its owner's no more.

        Raises:
            UnauthenticatedError: that has happened.
        """
        task = asyncio.current_task()
        assert task is not None
        self._calls[task] = credentials, owner
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._revoked:
                raise
            task.uncancel()
            raise UnauthenticatedError("the token or certificate of this call has been taken back") from None
        finally:
            del self._calls[task]
            self._revoked.discard(task)

    async def look_again(self) -> None:
        """Read the file again if it has changed and is not just being written. A mistake changes nothing."""
        before, self._seen = self._seen, self._stamp()
        if self._file is None or self._seen == self._read or self._seen != before:
            return
        self._read = self._seen
        try:
            self._take(await asyncio.to_thread(load_identities, self._file))
        except (CarouselError, OSError) as error:
            self.stale = True
            _log.error("identities_refused", error=str(error), effect="those read before still hold")
        else:
            self.stale = False
            _log.info("identities_read", owners=len(self._identities.owners))

    def _stamp(self) -> tuple[int, int, int] | None:
        """Differs when the file does; None: there is none."""
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            found = None
        return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)

    def _take(self, identities: Identities) -> None:
        self._identities = identities
        for name, owner in identities.owners.items():
            self._accounts.setdefault(name, Account()).quota = owner.quota
        kept = {proof for proof in set(self._calls.values()) if self._holds(*proof)}
        for task, proof in self._calls.items():
            if proof not in kept and task not in self._revoked:
                self._revoked.add(task)
                task.cancel()

    def _holds(self, credentials: Credentials, owner: str) -> bool:
        try:
            return self._owner_of(credentials) == owner
        except UnauthenticatedError:
            return False

    def _owner_of(self, credentials: Credentials) -> str:
        digest, names = credentials
        by_name = self._identities.owners_of_names(names)
        if len(by_name) > 1:
            raise UnauthenticatedError("the certificate has names of several owners")
        certified = next(iter(by_name), None)
        if digest is None:
            if certified is None:
                raise UnauthenticatedError(_expected("nobody's certificate" if names else "nothing"))
            return certified
        owner = self._identities.owner_of_token(digest)
        if owner is None:
            raise UnauthenticatedError("authorization: nobody has this token")
        # An owner without certificates may come with one that names nobody: it opens the connection and no more.
        if names and certified != owner and (certified or self._identities.owners[owner].certificates):
            raise UnauthenticatedError("token and certificate: expected those of one owner")
        return owner


_NOTHING = Credentials(None, frozenset())


def _expected(came: str) -> str:
    return f"authorization: expected 'Bearer TOKEN' in the metadata, came {came}"


def _digest(metadata: Metadata) -> bytes | None:
    given = [value for key, value in metadata if key == "authorization"]
    if not given:
        return None
    if len(given) > 1:
        raise UnauthenticatedError(_expected(f"{len(given)} of them"))
    (value,) = given
    if not isinstance(value, str) or value[: len(SCHEME)].lower() != SCHEME:
        raise UnauthenticatedError(_expected("something else"))
    return digest_of(value[len(SCHEME) :])


def _names(peer: AuthContext) -> frozenset[str]:
    return frozenset(name.decode(errors="replace") for kind in _NAMES for name in peer.get(kind, ()))

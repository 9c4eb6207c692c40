"""Who calls. Everybody is the same owner, and may do everything, until identities are configured."""

from contextvars import ContextVar
from typing import NamedTuple

from service.quotas import Account


class Identity(NamedTuple):
    """The caller of a call."""

    owner: str
    """Whose sessions these are: ids of different owners never meet."""
    admin: bool
    """May list everybody's sessions, restore foreign snapshots, load and unload models."""
    account: Account = Account()
    """What the owner uses, held against its quota; one for all of its calls. By default there is no quota."""


ANONYMOUS = Identity("anonymous", admin=True)

caller: ContextVar[Identity] = ContextVar("caller")
"""Of the call under way; set by the interceptor. Tasks that a call starts inherit it; callbacks between two runs belong to
nobody, and there is no default that would make them an administrator's.
"""

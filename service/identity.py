"""Who calls. Everybody is the same owner, and may do everything, until identities are configured."""

from contextvars import ContextVar
from typing import NamedTuple


class Identity(NamedTuple):
    """The caller of a call."""

    owner: str
    """Whose sessions these are: ids of different owners never meet."""
    admin: bool
    """May list everybody's sessions, restore foreign snapshots, load and unload models."""


ANONYMOUS = Identity("anonymous", admin=True)

caller: ContextVar[Identity] = ContextVar("caller", default=ANONYMOUS)
"""Of the call under way; set by the interceptor."""

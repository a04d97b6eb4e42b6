"""Users of the pages, and the rights that their roles give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from automate_kernel.base.errors import ConfigError

Right = Literal["view", "steer", "decide", "start"]

_RIGHTS: dict[str, frozenset[Right]] = {
    "viewer": frozenset({"view"}),
    "operator": frozenset({"view", "steer"}),
    "approver": frozenset({"view", "decide"}),
    "author": frozenset({"view", "steer", "start"}),
    "admin": frozenset({"view", "steer", "decide", "start"}),
}
ROLES = tuple(_RIGHTS)
"""The roles that give rights on the pages."""


@dataclass(frozen=True, slots=True, init=False)
class User:
    """
    A person who is signed in.

    *roles* are some of viewer, operator, approver, author and admin. Roles of the host's own give
    no right here, but an approval may ask for them (``by: [role:finance]``). A user with a *tenant*
    sees this tenant's rows alone; None sees the rows of all.
    """

    name: str
    roles: frozenset[str]
    tenant: str | None

    def __init__(self, name: str, roles: Iterable[str], tenant: str | None) -> None:
        if isinstance(roles, str):
            roles = (roles,)
        if tenant == "":
            raise ConfigError(
                "a user's tenant is empty",
                hint="give the tenant's name, or None to who sees the rows of all tenants",
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "roles", frozenset(roles))
        object.__setattr__(self, "tenant", tenant)

    def may(self, right: Right) -> bool:
        """Return True if one of the user's roles gives *right*."""
        return any(right in _RIGHTS.get(role, ()) for role in self.roles)

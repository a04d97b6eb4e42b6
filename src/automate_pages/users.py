"""Users of the pages, and the rights that their roles give."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from automate_kernel.access import roles as known
from automate_kernel.base.arguments import several
from automate_kernel.base.errors import ConfigError

Right = known.Right
ROLES = known.ROLES
"""The roles that give rights on the pages."""


@dataclass(frozen=True, slots=True)
class User:
    """
    A person who is signed in.

    *roles* are some of viewer, operator, approver, author and admin. Roles of the host's own give
    no right here, but an approval may ask for them (``by: [role:finance]``). A user with a *tenant*
    sees this tenant's rows alone; None sees the rows of all. Who *stands_in* answers approvals for
    whomever they ask, as a developer does who tries a workflow.
    """

    name: str
    roles: Collection[str]
    tenant: str | None
    stands_in: bool = False

    def __post_init__(self) -> None:
        if self.tenant == "":
            raise ConfigError(
                "a user's tenant is empty",
                hint="give the tenant's name, or None to who sees the rows of all tenants",
            )
        object.__setattr__(self, "roles", frozenset(several(self.roles)))

    def may(self, right: Right) -> bool:
        """Return True if one of the user's roles gives *right*."""
        return right in known.rights_of(self.roles)


def roles_from(values: Iterable[str], mapping: Mapping[str, str] | None = None) -> frozenset[str]:
    """
    Return the roles that *values* of a proxy or a provider stand for, by way of *mapping*.

    A value that is not in the mapping is a role of the host's own, unless it has the name of a role
    that gives rights: these come by the mapping alone.
    """
    if mapping is None:
        return frozenset(values)
    own = {each for each in values if each and each not in mapping and each not in ROLES}
    return frozenset({*own, *(mapping[each] for each in values if each in mapping)})

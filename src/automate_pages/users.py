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
    whomever they ask, as a developer does who tries a workflow. *id* distinguishes users of one
    name.

    For a host with permissions of its own, *rights* are those on single screens (``view:outbox``),
    and *groups* are roles for approvals that give no right, whatever their names.
    """

    name: str
    roles: Collection[str]
    tenant: str | None
    stands_in: bool = False
    id: str = ""
    groups: Collection[str] = ()
    rights: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.tenant == "":
            raise ConfigError(
                "a user's tenant is empty",
                hint="give the tenant's name, or None to who sees the rows of all tenants",
            )
        for name in ("roles", "groups", "rights"):
            object.__setattr__(self, name, frozenset(several(getattr(self, name))))

    def may(self, right: Right, screen: str = "") -> bool:
        """Return True if the user has *right*: by a role, or on *screen* alone."""
        return right in known.rights_of(self.roles) or f"{right}:{screen}" in self.rights

    @property
    def asked_as(self) -> frozenset[str]:
        """The roles that an approval may ask for: those of the user, and the groups."""
        return frozenset({*self.roles, *self.groups})


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

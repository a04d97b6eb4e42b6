"""
The operators' pages of automate-kernel, for every host.

`pages` is an ASGI application to mount (it needs Starlette); `Site` is what other hosts build on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_kernel.base.lazy import lazy_names

if TYPE_CHECKING:
    from automate_pages.asgi import pages
    from automate_pages.auth import header, loopback, read_only
    from automate_pages.log_in import LogIn
    from automate_pages.openid import Oidc
    from automate_pages.site import Site
    from automate_pages.users import ROLES, User

__all__ = ["ROLES", "LogIn", "Oidc", "Site", "User", "header", "loopback", "pages", "read_only"]

if not TYPE_CHECKING:  # it would give any name, even a misspelt name
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "asgi": ("pages",),
            "auth": ("header", "loopback", "read_only"),
            "log_in": ("LogIn",),
            "openid": ("Oidc",),
            "site": ("Site",),
            "users": ("ROLES", "User"),
        },
    )

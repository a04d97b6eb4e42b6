"""
The operators' pages of automate-kernel, for every host.

`pages` is an ASGI application to mount (it needs Starlette); `Site` is what other hosts build on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from automate_kernel.base.lazy import lazy_names

if TYPE_CHECKING:
    from automate_pages.asgi import loopback, pages
    from automate_pages.site import Site
    from automate_pages.users import User

__all__ = ["ROLES", "Site", "User", "loopback", "pages"]

if not TYPE_CHECKING:  # it would give any name, even a misspelt name
    __getattr__, __dir__ = lazy_names(
        __name__,
        {"asgi": ("loopback", "pages"), "site": ("Site",), "users": ("ROLES", "User")},
    )

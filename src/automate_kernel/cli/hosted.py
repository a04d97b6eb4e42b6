"""The command line's commands on a kernel that a host has made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.storage import Storage

from automate_kernel.secrets.redaction import redact_text

__all__ = ["HostSession"]


class HostSession:
    """What a command works with: the kernel that *make* gives at the first use."""

    def __init__(self, make: Callable[[], Kernel]) -> None:
        self._make = make

    @cached_property
    def kernel(self) -> Kernel:
        """The host's kernel."""
        return self._make()

    @property
    def plain(self) -> Kernel:
        """The same: a host's kernel is there already."""
        return self.kernel

    @property
    def bare(self) -> Storage:
        """The host's own storage."""
        return self.kernel.storage

    def redact(self, text: str) -> str:
        """*text* without the secrets that the kernel has read so far."""
        return redact_text(text)

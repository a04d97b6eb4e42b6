"""Files that actions write under another name first: a worker that is killed leaves them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from automate_kernel.base import runtime
from automate_kernel.operations.context import current_call

_END = ".part"


@dataclass(frozen=True, slots=True)
class Draft:
    """The name of a file that is being written, beside the file whose place it takes."""

    name: str
    left: str | None
    """The beginning of the names that earlier attempts of the step may have left, or None."""

    @classmethod
    def of(cls, target: str) -> Draft:
        """
        Return a new name for what becomes the file *target*, for the current call.

        Each attempt has another: an attempt whose worker was only thought dead may still be
        writing.
        """
        call, own = current_call(), runtime.uuid4().hex
        # Outside a workflow two calls may have one key, and neither deletes the other's.
        if call is None or call.execution_id is None or call.idempotency_key is None:
            return cls(f".{own}{_END}", None)
        about = json.dumps([call.idempotency_key, target]).encode("utf-8", "surrogatepass")
        begin = f".{hashlib.sha256(about).hexdigest()[:16]}-"
        return cls(f"{begin}{own}{_END}", begin if call.repeated else None)

    def delete_left(self, folder: Path) -> None:
        """Delete from *folder* what earlier attempts have left there."""
        for each in folder.iterdir() if self.left is not None else ():
            if self.is_left(each.name):
                each.unlink(missing_ok=True)

    def is_left(self, name: str) -> bool:
        """Return True if the file *name* is of an earlier attempt, and can be deleted."""
        return self.left is not None and name.startswith(self.left) and name.endswith(_END)

"""The output of commands, of `automate` and `manage.py` alike, that can't be written."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from automate_kernel.base.errors import AutomateError, ErrorCodes

# A full disk or quota, a file that may not grow, a terminal that is gone.
_UNWRITABLE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))


@contextmanager
def written_output() -> Iterator[None]:
    """
    Write out standard output at the end of the block; raise `AutomateError` if it can't be written.

    If its reader has had enough, as ``head`` has, the process exits with 1 and says nothing.
    """
    try:
        yield
        _flush()
    except OSError as error:
        if error.errno != errno.EPIPE and error.errno not in _UNWRITABLE:
            raise
        _discard()
        if error.errno == errno.EPIPE:
            raise SystemExit(1) from None
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION,
            f"what the command has to write can't be written: {error.strerror}",
            hint="make room for it; before you repeat the command, look what it has done",
        ) from None
    except BaseException:
        try:
            _flush()
        except OSError:
            _discard()  # the first error says more
        raise


def _flush() -> None:
    if sys.stdout is not None:  # as it is where a daemon has closed it
        sys.stdout.flush()


def _discard() -> None:
    # Python would try, and complain, once more at its end; of what is no file it knows nothing.
    with suppress(AttributeError, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

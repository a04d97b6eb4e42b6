"""Contents: the bytes of a file, as GitHub's API gives and takes them."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from typing import Any

from pydantic import BaseModel

from automate_github.answers import File
from automate_kernel.base.errors import AutomateError, ErrorCodes

_MOST_BYTES = 1024 * 1024


class RepositoryContent(BaseModel):
    """A file, or something else at a path, as GitHub describes it."""

    type: str
    path: str
    sha: str
    size: int
    encoding: str | None = None
    content: str | None = None


def contents_at(path: str) -> tuple[str, dict[str, Any]]:
    """Return the template of the address of *path*, and its parts: none leads elsewhere."""
    parts: dict[str, Any] = {f"part{place}": part for place, part in enumerate(path.split("/"))}
    return "/repos/{owner}/{repo}/contents/" + "/".join(f"{{{name}}}" for name in parts), parts


def file_of(found: RepositoryContent | list[Any]) -> File:
    """Return the file that GitHub has *found*; a folder or a large file is an error."""
    if isinstance(found, list) or found.type != "file":
        raise AutomateError(ErrorCodes.FAILED_PRECONDITION, "the path is no file's")
    if found.encoding != "base64" or found.content is None:
        raise AutomateError(
            ErrorCodes.FAILED_PRECONDITION, "the file is larger than GitHub shows: 1 MB"
        )
    try:
        content = b64decode(found.content)
    except binascii.Error:
        raise AutomateError(ErrorCodes.UNAVAILABLE, "the file's content can't be read") from None
    try:
        text: str | None = content.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    raw = b64encode(content).decode("ascii") if text is None else None
    return File(path=found.path, sha=found.sha, size=found.size, text=text, base64=raw)


def content_of(text: str | None, base64: str | None) -> bytes:
    """Return the bytes to write, of at most 1 MB, which are given in one of two ways."""
    if (text is None) == (base64 is None):
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            "a file's content is either text or base64",
            hint="give text for what is UTF-8, and base64 for all else; text: '' is an empty file",
        )
    try:
        if base64 is None:
            content = str(text).encode()
        else:
            content = b64decode("".join(base64.split()), validate=True)
    except UnicodeEncodeError:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "text is not valid Unicode") from None
    except ValueError:
        raise AutomateError(ErrorCodes.INVALID_ARGUMENT, "base64 can't be decoded") from None
    if len(content) > _MOST_BYTES:
        raise AutomateError(
            ErrorCodes.INVALID_ARGUMENT,
            f"the content has {len(content):,} bytes; the most is {_MOST_BYTES:,}",
            hint="push a larger file by git, or keep it elsewhere and write its address",
        )
    return content


def blob_sha(content: bytes) -> str:
    """Return the SHA that Git gives to a file of this *content*."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def explain_refused_write(error: AutomateError, given: str | None, current: str | None) -> None:
    """
    Say in *error*, by which GitHub has refused to write a file, what to do.

    *given* is the SHA that was to be replaced, and *current* the one that is there.
    """
    said = error.message.lower()
    if given != current:
        exists = given is None
        error.code = ErrorCodes.ALREADY_EXISTS if exists else ErrorCodes.FAILED_PRECONDITION
        error.hint = (
            "the file is gone: leave sha out to create it again" if current is None
            else "the file is there: get it by get_file, and give its sha to replace it" if exists
            else "the file was changed meanwhile: get it by get_file again, and give its new sha"
        )  # fmt: skip
    elif "but expected" in said:
        # Another commit came to the branch at the same moment, for another file.
        error.code, error.retryable = ErrorCodes.ABORTED, True
    elif "rule" in said or "protected" in said:
        error.hint = "write to another branch, and create a pull request from it"

"""The keys of secrets in Vault: a path, with a field and a version of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

_KEY = re.compile(r"(?P<path>[^#]+?)(?:#(?P<field>[^#]+?))?(?:@(?P<version>[1-9][0-9]{0,8}))?")
_NOT_IN_PART = frozenset('%?*"\\')
_DEFAULT_FIELD = "value"


@dataclass(frozen=True, slots=True)
class SecretPath:
    """The place of a secret. *version* is None for the newest."""

    mount: str
    path: str
    field: str
    version: int | None = None

    @property
    def quoted(self) -> str:
        """The path as a URL has it."""
        return quote(self.path)


def parse_key(key: str, mounts: Sequence[str]) -> SecretPath | None:
    """
    Return the place that *key* names, ``[MOUNT/]PATH[#FIELD][@VERSION]``; None if it names none.

    A key that begins with one of *mounts* is in that mount, else in the first. A path can't lead
    out of its mount.
    """
    match = _KEY.fullmatch(key)
    if match is None or not all(_is_part(part) for part in match["path"].split("/")):
        return None
    path = match["path"]
    inside = [mount for mount in mounts if path.startswith(f"{mount}/")]
    mount = max(inside, key=len, default=mounts[0])
    if inside:
        path = path[len(mount) + 1 :]
    version = int(match["version"]) if match["version"] else None
    return SecretPath(mount, path, match["field"] or _DEFAULT_FIELD, version)


def is_mount(text: str) -> bool:
    """Return True if *text* can be the path of a mount: ``secret``, ``team/kv``."""
    return all(_is_part(part) for part in text.split("/"))


def _is_part(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and part == part.strip()
        and part.isprintable()
        and not _NOT_IN_PART & set(part)
    )

"""Folders of secrets that can't be read, for backends of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def broken_folders(kind: Any, folder: Path, *keys: str) -> dict[str, Any]:
    """Make a backend of a *kind* for each way in which files can't be read."""
    made: dict[str, Path] = {}
    for failure in ("directory", "pipe", "binary", "huge", "dangling", "circle", "outside"):
        made[failure] = folder / failure
        made[failure].mkdir(parents=True)
        for key in keys:
            place = made[failure] / key
            make: dict[str, Callable[[], Any]] = {
                "directory": place.mkdir,
                "pipe": lambda place=place: os.mkfifo(place),
                "binary": lambda place=place: place.write_bytes(b"\xff"),
                "huge": lambda place=place: place.write_bytes(b"x" * 70_000),
                "dangling": lambda place=place: place.symlink_to("..data/not-mounted"),
                "circle": lambda place=place: place.symlink_to(place.name),
                "outside": lambda place=place: place.symlink_to(__file__),
            }
            make[failure]()
    (folder / "of-a-disk").symlink_to(folder / "that-is-away")
    (folder / "in-a-circle").symlink_to("in-a-circle")
    (folder / "a-file").write_text("no folder")
    made |= {each: folder / each for each in ("of-a-disk", "in-a-circle", "a-file")}
    return {failure: kind(place) for failure, place in made.items()}

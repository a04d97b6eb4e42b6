"""Files in local folders, S3 and SFTP for automate-kernel: actions, arrivals, large outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from automate_files.config import FilesConfig
from automate_files.connector import FilesConnector

if TYPE_CHECKING:
    from automate_files.output_store import PlaceOutputStore

__all__ = ["FilesConfig", "FilesConnector", "PlaceOutputStore"]


if not TYPE_CHECKING:  # it would give any name, even a misspelt name

    def __getattr__(name: str) -> Any:
        # Not needed for the connector.
        if name == "PlaceOutputStore":
            from automate_files.output_store import PlaceOutputStore

            return PlaceOutputStore
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

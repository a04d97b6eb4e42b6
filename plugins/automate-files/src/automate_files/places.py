"""The places of a config, each made at its first use."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from automate_files.config import FsspecConfig, LocalConfig, PlaceConfig, S3PlaceConfig, SftpConfig
from automate_files.place import FilePlace
from automate_kernel import AutomateError, ConfigError, ErrorCodes
from automate_kernel.operations.context import SecretReader


def parse_place(config: Mapping[str, Any]) -> PlaceConfig:
    """Return the checked config of a place; raise `ConfigError` if it is invalid."""
    try:
        checked: PlaceConfig = TypeAdapter(PlaceConfig).validate_python(dict(config))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(each) for each in first["loc"])
        raise ConfigError(f"the place's config is not valid: {where}: {first['msg']}") from None
    return checked


def make_place(name: str, config: PlaceConfig, secrets: SecretReader) -> FilePlace:
    """Return the place of *config*; only now is its library imported."""
    if isinstance(config, LocalConfig):
        from automate_files.local import LocalPlace

        return LocalPlace(name, config)
    try:
        if isinstance(config, SftpConfig):
            from automate_files.sftp import SftpPlace

            return SftpPlace(name, config, secrets)
        from automate_files.fsspec_place import FsspecPlace, S3Place
    except ImportError as error:
        raise ConfigError(
            f"the place {name!r} needs a library that isn't installed: {error.name}",
            hint=f"pip install 'automate-files[{config.type}]'",
        ) from None
    if isinstance(config, S3PlaceConfig):
        return S3Place(name, config, secrets)
    return FsspecPlace(name, config)


class Places:
    """The places of a connector by name."""

    def __init__(self, configs: Mapping[str, PlaceConfig], secrets: SecretReader) -> None:
        self._configs, self._secrets = dict(configs), secrets
        self._made: dict[str, FilePlace] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The names, in the config's order."""
        return list(self._configs)

    def config(self, name: str) -> LocalConfig | S3PlaceConfig | SftpConfig | FsspecConfig:
        """Return the config of the place *name*; raise ``INVALID_ARGUMENT`` without it."""
        if name not in self._configs:
            raise AutomateError(
                ErrorCodes.INVALID_ARGUMENT,
                f"there is no place {name[:80]!r}",
                hint=f"the config has: {', '.join(self._configs) or 'none'}",
            )
        return self._configs[name]

    def get(self, name: str) -> FilePlace:
        """Return the place *name*."""
        config = self.config(name)
        with self._lock:
            if name not in self._made:
                self._made[name] = make_place(name, config, self._secrets)
            return self._made[name]

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            made, self._made = list(self._made.values()), {}
        for each in made:
            each.close()

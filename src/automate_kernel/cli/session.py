"""What one command works with: the settings, and the kernel that they describe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automate_kernel.cli.database import open_storage
from automate_kernel.cli.host import find_on, host_of, load_app, set_up
from automate_kernel.cli.logs import redact_logs
from automate_kernel.cli.settings import Settings
from automate_kernel.errors import ConfigError
from automate_kernel.logs import get_logger
from automate_kernel.secrets.log_filter import redact_text
from automate_kernel.secrets.strength import strength_of

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.secrets import SecretsBackend
    from automate_kernel.storage import Storage

__all__ = ["Session"]

logger: logging.Logger = get_logger(__name__)


# What a kernel that `app` brings along has decided already.
_KERNELS_OWN = (
    "database", "outbox", "plugins", "secrets", "config", "env_allow", "discover", "strict",
    "disabled", "winners", "worker.lease_seconds", "worker.listen",
)  # fmt: skip


class Session:
    """
    The settings of *file* and *flags*, and what is made of them at the first use.

    It can be made again in another process from its two arguments.
    """

    def __init__(self, file: str | None = None, flags: Mapping[str, Any] | None = None) -> None:
        self.file = file
        self.flags: dict[str, Any] = dict(flags or {})
        self._kernels: list[Kernel] = []
        self._create: bool | None = None

    def arguments(self) -> dict[str, Any]:
        """What a worker process makes its own session of."""
        return {"file": self.file, "flags": self.flags}

    @cached_property
    def settings(self) -> Settings:
        """The settings. Raises `ConfigError`."""
        from automate_kernel.cli.sources import load_settings

        return load_settings(self.file, self.flags)

    def set_flag(self, name: str, value: Any) -> None:
        """Let *value* be the setting *name*; to be called before a kernel is made."""
        self.flags[name] = value
        self.__dict__.pop("settings", None)

    @cached_property
    def app(self) -> Any:
        """What the setting ``app`` names, imported now; None without one."""
        find_on(self.settings.folder / self.settings["app_dir"])
        target = self.settings["app"]
        return load_app(target) if target else None

    @cached_property
    def storage(self) -> Storage:
        """The database, opened; the tables of a SQLite file are made."""
        storage: Storage = self.open_storage(create=self._create)
        return storage

    @property
    def bare(self) -> Storage:
        """The storage of `plain`; the tables of a SQLite file are not made."""
        self._create = False
        return self.plain.storage

    def open_storage(self, *, create: bool | None = None) -> Any:
        """The database of the settings; see `automate_kernel.cli.database.open_storage`."""
        given = self.settings.values["database"]
        typed = given.source.startswith(("--", "AUTOMATE_"))
        return open_storage(
            given.value,
            folder=Path.cwd() if typed else self.settings.folder,
            listen=self.settings["worker.listen"],
            create=create,
        )

    # -- kernels -------------------------------------------------------------------------------

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel with everything that the settings name."""
        return self.build()

    def build(self, storage: Storage | None = None, *, workflows: bool = True) -> Kernel:
        """
        A kernel with everything, on *storage* if it is given.

        Where ``app`` is a kernel it is that one, with its own storage, plugins and secrets.
        """
        own = host_of(self.app) if self.app is not None else None
        if own is not None:
            return self._hosted(own, workflows=workflows)
        settings = self.settings
        from automate_kernel.kernel import Kernel

        kernel = Kernel(
            storage or self.storage,
            outbox=settings["outbox"],
            plugins=settings["plugins"],
            config=settings["config"],
            secrets=self._backends(),
            env_allow=settings["env_allow"],
            discover=settings["discover"],
            strict=settings["strict"],
            disabled=settings["disabled"],
            winners=settings["winners"],
            lease_seconds=settings["worker.lease_seconds"],
            retention_seconds=settings["worker.retention_seconds"],
            failed_retention_seconds=settings["worker.failed_retention_seconds"],
        )
        self._kernels.append(kernel)
        self._redact_database(kernel)
        redact_logs(kernel)
        if self.app is not None:
            set_up(kernel, self.app)
        if workflows:
            self._add_workflows(kernel)
        return kernel

    def _hosted(self, kernel: Kernel, *, workflows: bool) -> Kernel:
        for name in _KERNELS_OWN:
            if self.settings.given(name):
                raise ConfigError(
                    f"{name} is set, and app is a kernel that has its own",
                    hint=f"take {name} out ({self.settings.values[name].source}), or let app be a "
                    "function that is called with the kernel",
                )
        if workflows and self.settings.given("workflows"):
            self._add_workflows(kernel)
        return kernel

    @cached_property
    def plain(self) -> Kernel:
        """
        A kernel to look at and steer what is stored: without plugins and workflows.

        So a broken plugin or workflow keeps nobody from looking.
        """
        try:
            own = host_of(self.app) if self.app is not None else None
        except ConfigError:
            if not self.settings.given("database"):
                raise
            own = None  # broken code of the host's is no reason not to look
        if own is not None:
            return own
        from automate_kernel.kernel import Kernel

        lease, outbox = self.settings["worker.lease_seconds"], self.settings["outbox"]
        kernel = Kernel(
            self.storage,
            secrets={},
            outbox=outbox,
            discover=outbox is not None and self.settings["discover"],
            lease_seconds=lease,
        )
        self._kernels.append(kernel)
        self._redact_database(kernel)
        redact_logs(kernel)
        return kernel

    def _redact_database(self, kernel: Kernel) -> None:
        """Let the redactor know the database's password: a driver's error may tell it."""
        url = getattr(getattr(kernel.storage, "engine", None), "url", None)
        password = getattr(url, "password", None)
        if password and strength_of(str(password)) == "strong":
            kernel.redactor.add(str(password))

    def workflow_paths(self) -> list[Path]:
        """The files and folders that the settings name, or the folder ``workflows``."""
        folder, named = self.settings.folder, self.settings["workflows"]
        if named is not None:
            return [folder / path for path in named]
        usual = folder / "workflows"
        return [usual] if usual.is_dir() else []

    def _add_workflows(self, kernel: Kernel) -> None:
        for path in self.workflow_paths():
            kernel.add_workflow(path)

    def _backends(self) -> list[SecretsBackend | str]:
        return [_backend(given, self.settings.folder) for given in self.settings["secrets"]]

    def redact(self, text: str) -> str:
        """*text* without the secrets that were read so far, by a kernel that failed too."""
        return redact_text(text)

    def close(self) -> None:
        """Close what was opened."""
        for kernel in self._kernels:
            kernel.close()
        storage = self.__dict__.get("storage")
        if storage is not None:
            storage.engine.dispose()


def _backend(given: Any, folder: Path) -> SecretsBackend | str:
    from automate_kernel.plugins.targets import load_target, normal_target
    from automate_kernel.secrets import EnvSecretsBackend, FileSecretsBackend

    if isinstance(given, str):
        given = {"backend": given}
    options = dict(given) if isinstance(given, dict) else {}
    name = options.pop("backend", None)
    if not isinstance(name, str):
        raise ConfigError(
            "secrets: each backend is its name, or a table with backend = its name",
            hint='for example secrets = ["env", {backend = "file", directory = "/run/secrets"}]',
        )
    if name == "file" and isinstance(options.get("directory"), str):
        options["directory"] = folder / options["directory"]
    known: dict[str, Any] = {"env": EnvSecretsBackend, "file": FileSecretsBackend}
    if name not in known and not options:
        return name  # the kernel finds it among the plugins
    cls = known[name] if name in known else load_target(normal_target(name))
    try:
        backend: SecretsBackend = cls(**options)
    except TypeError as error:
        raise ConfigError(
            f"secrets: the backend {name!r} doesn't take these options",
            hint='file needs directory = "…"' if name == "file" else str(error).split(") ")[-1],
        ) from None
    return backend

"""The session of a command: its settings, and the kernel that they describe."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from automate_cli.database import Making, create_missing_tables, is_stand_in, open_storage
from automate_cli.interruption import be_interruptible
from automate_cli.output import redact_logs
from automate_cli.settings import Settings, Value, default_values, load_settings
from automate_kernel.base.errors import AutomateError, ConfigError, PluginError, type_name
from automate_kernel.operations.plugin_config import ConfigPlaces
from automate_kernel.plugins.targets import describe_failure, load_target
from automate_kernel.secrets.masking import strength_of
from automate_kernel.storage import MemoryStorage, Storage
from automate_kernel.storage.output_store import LateOutputStore, OutputStore
from automate_kernel.workflows.automation import Automation

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

# A kernel that `app` brings along has decided these already.
_KERNELS_OWN = (
    "database", "outbox", "output_store", "executors", "relays", "subscriptions",
    "plugins", "secrets", "config",
    "env_allow", "discover", "strict", "disabled", "winners", "worker.lease_seconds",
    "worker.listen", "worker.version", "signing_keys", "public_url", "audit_retention_seconds",
)  # fmt: skip


class Session:
    """
    The settings of *file* and *flags*, and the kernels that are made of them at the first use.

    It can be made again in another process from its two arguments.
    """

    def __init__(self, file: str | None = None, flags: Mapping[str, Any] | None = None) -> None:
        self.file = file
        self.flags: dict[str, Any] = dict(flags or {})
        self._kernels: list[Kernel] = []
        self._making: Making = "tables"
        self.note: Callable[[str], None] | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments with which a worker process makes its own session."""
        return {"file": self.file, "flags": self.flags}

    @cached_property
    def settings(self) -> Settings:
        """The settings. Raises `ConfigError`."""
        return load_settings(self.file, self.flags)

    def set_flag(self, name: str, value: Any) -> None:
        """Let *value* be the setting *name*; to be called before a kernel is made."""
        self.flags[name] = value
        self.__dict__.pop("settings", None)

    @cached_property
    def app(self) -> Any:
        """The object that the setting ``app`` names, imported now; None if it is not set."""
        folder = str(self.settings.folder / self.settings["app_dir"])
        if folder not in sys.path:
            sys.path.insert(0, folder)
        target = self.settings["app"]
        return load_app(target) if target else None

    @cached_property
    def storage(self) -> Storage:
        """The database, opened; a SQLite file and its tables are made, unless one only looks."""
        given = self.settings.values["database"]
        typed = given.source.startswith(("--", "AUTOMATE_"))
        storage = open_storage(
            given.value,
            folder=Path.cwd() if typed else self.settings.folder,
            listen=self.settings["worker.listen"],
            making=self._making,
        )
        if self.note is not None and is_stand_in(storage):
            self.note(f"{storage.describe()}: there is no file yet, so nothing is stored")
        return storage

    def look(self) -> Session:
        """Return this session, which makes no SQLite file and no tables from now on."""
        self._making = "stand-in"
        return self

    def bare(self, *, file: bool = False) -> Storage:
        """Return the storage of `plain` as it is: its tables aren't made, and its *file* may be."""
        self._making = "file" if file else "nothing"
        return self._plain.storage

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel with everything that the settings name."""
        return self.build()

    def build(self, storage: Storage | None = None, *, workflows: bool = True) -> Kernel:
        """
        Return a kernel with everything, on *storage* if it is given.

        Where ``app`` is a kernel, return that kernel, with its own storage, plugins and secrets.
        """
        kernel = self._built(storage, workflows=workflows)
        be_interruptible()  # from here on something may begin
        return kernel

    def _built(self, storage: Storage | None, *, workflows: bool) -> Kernel:
        own = self._own()
        if own is not None:
            return self._hosted(own, workflows=workflows)
        settings = self.settings
        names = (
            "outbox", "plugins", "config", "env_allow", "discover", "strict", "disabled",
            "signing_keys", "public_url", "audit_retention_seconds", "executors", "relays",
            "subscriptions",
        )  # fmt: skip
        from automate_kernel.workflows import StoredWorkflows

        storage = storage or self.storage
        kernel = self._made(
            storage,
            workflow_source=StoredWorkflows(storage) if workflows else None,
            secrets=[_backend(given, settings.folder) for given in settings["secrets"]],
            winners=settings["winners"],
            version=settings["worker.version"],
            retention_seconds=settings["worker.retention_seconds"],
            failed_retention_seconds=settings["worker.failed_retention_seconds"],
            output_store=self._outputs(),
            **{name: settings[name] for name in names},
        )
        if self.app is not None:
            set_up(kernel, self.app)
        if workflows:
            self._add_workflows(kernel)
        return kernel

    @cached_property
    def signing(self) -> Kernel:
        """The kernel with its secrets, which signing keys may be, and without workflows."""
        return self.build(workflows=False)

    @property
    def for_calls(self) -> Kernel:
        """
        The kernel on the database, without workflows, for calls of operations.

        The tables of a SQLite file are not made, since most calls need none: see `create_tables`.
        """
        self._making = "file"
        return self.signing

    def create_tables(self) -> None:
        """Make the tables of `for_calls`, if they are missing in a SQLite file of ours."""
        if "storage" in self.__dict__:  # else it is an application's own
            create_missing_tables(self.storage)

    def in_memory(self, *, workflows: bool = True) -> Kernel:
        """Return a kernel with everything, except that it keeps nothing; see `build`."""
        return self.build(MemoryStorage(), workflows=workflows)

    def _hosted(self, kernel: Kernel, *, workflows: bool) -> Kernel:
        name = next(filter(self.settings.given, _KERNELS_OWN), None)
        if name is not None:
            raise ConfigError(
                f"{name} is set, and app is a kernel that has its own",
                hint=f"take {name} out ({self.settings.values[name].source}), or let app be a "
                "function that is called with the kernel",
            )
        if workflows and self.settings.given("workflows"):
            self._add_workflows(kernel)
        return kernel

    @property
    def plain(self) -> Kernel:
        """
        A kernel for looking at stored rows and changing them, without plugins and workflows.

        So a broken plugin or workflow keeps nobody from looking. Where there is no SQLite file,
        there are no rows, and none is made.
        """
        self.look()
        return self._plain

    @property
    def storing(self) -> Kernel:
        """The same as `plain`, for the first rows too: a SQLite file and its tables are made."""
        return self._plain

    @cached_property
    def _plain(self) -> Kernel:
        try:
            own = self._own()
        except ConfigError:
            if not self.settings.given("database"):
                raise
            own = None  # one can look at the database though the host's code is broken
        if own is not None:
            return own
        outbox, outputs = self.settings["outbox"], self._outputs()
        discover = outbox is not None and self.settings["discover"]
        if isinstance(outputs, dict):
            outputs = LateOutputStore(self._whole_outputs)
        return self._made(
            self.storage, secrets={}, outbox=outbox, discover=discover, output_store=outputs
        )

    def _whole_outputs(self) -> OutputStore:
        """Return the output store of a plugin, made by a kernel with plugins and secrets."""
        store = self.signing.executions.outputs.store
        assert store is not None  # noqa: S101 - the settings name one
        return store

    @cached_property
    def whole(self) -> Kernel:
        """A kernel with everything, on the database that all processes share."""
        kernel = self.build()
        require_shared(kernel)
        return kernel

    def _own(self) -> Kernel | None:
        return host_of(self.app) if self.app is not None else None

    def _outputs(self) -> Path | dict[str, Any] | OutputStore | None:
        """Return the output store of the settings, as a kernel takes it."""
        given = self.settings["output_store"]
        return self.settings.folder / given if isinstance(given, str) else given or None

    def _made(self, storage: Storage, **options: Any) -> Kernel:
        """Return a new kernel, whose secrets and database password are kept out of all output."""
        from automate_kernel.kernel import Kernel

        lease_seconds = self.settings["worker.lease_seconds"]
        kernel = Kernel(storage, lease_seconds=lease_seconds, **options)
        kernel.operations.places = _places(self.settings)
        self._kernels.append(kernel)
        # A driver's error may show the password.
        url = getattr(getattr(storage, "engine", None), "url", None)
        password = getattr(url, "password", None)
        if password and strength_of(str(password)) == "strong":
            kernel.redactor.add(str(password))
        redact_logs(kernel)
        return kernel

    def user_id(self, name: str) -> str:
        """Return the id of the application's user *name*; raises `ConfigError`."""
        raise ConfigError("this application names no users", hint="leave --user out")

    def workflow_paths(self) -> list[Path]:
        """Return the files and folders that the settings name, or the folder ``workflows``."""
        folder, named = self.settings.folder, self.settings["workflows"]
        if named is not None:
            return [folder / path for path in named]
        usual = folder / "workflows"
        return [usual] if usual.is_dir() else []

    def _add_workflows(self, kernel: Kernel) -> None:
        for path in self.workflow_paths():
            kernel.add_workflow(path)

    def close(self) -> None:
        """Close the kernels and the database."""
        for kernel in self._kernels:
            kernel.close()
        storage = self.__dict__.get("storage")
        if storage is not None:
            storage.engine.dispose()


_FOLDERS = {"file", "writable_file"}


def _places(settings: Settings) -> ConfigPlaces:
    file = settings.file.name if settings.file is not None else "automate.toml"
    table = "tool.automate.config" if file == "pyproject.toml" else "config"
    place = f"in {file}, below [{table}.{{key}}]"
    return ConfigPlaces(
        f"write it {place}: {{entries}}", "{field} = {value}", stands=f"it stands {place}"
    )


def _backend(given: Any, folder: Path) -> dict[str, Any]:
    """Return a backend as a kernel takes it, with its folder seen from that of the settings."""
    options = dict(given) if isinstance(given, dict) else {"backend": given}
    name = options.pop("backend", None)
    if not isinstance(name, str):
        raise ConfigError(
            "secrets: each backend is its name, or a table with backend = its name",
            hint='for example secrets = ["env", {backend = "file", directory = "/run/secrets"}]',
        )
    if name in _FOLDERS and isinstance(options.get("directory"), str):
        options["directory"] = folder / options["directory"]
    elif name in _FOLDERS:
        raise ConfigError(
            f"secrets: the backend {name!r} reads a folder", hint=f'{name} needs directory = "…"'
        )
    return {"backend": name, **options}


class HostSession(Session):
    """
    The session of a command on the kernel of another program, which *make* gives at first use.

    Without *colour* its output is plain in terminals, too. *commands* has the settings of commands
    of plugins by their names. *users* gives the id of one of the program's users, None for nobody.
    """

    def __init__(
        self,
        make: Callable[[], Kernel],
        *,
        colour: bool = True,
        commands: Mapping[str, Any] | None = None,
        users: Callable[[str], str | None] | None = None,
    ) -> None:
        super().__init__()
        self._make, self._users = make, users
        self.colour = colour
        self._commands = dict(commands or {})

    @cached_property
    def _plain(self) -> Kernel:
        return self._make()

    @cached_property
    def settings(self) -> Settings:
        """The settings of commands; all others have their defaults: the kernel has its own."""
        return Settings({**default_values(), "commands": Value(self._commands)}, Path.cwd())

    def build(self, storage: Storage | None = None, *, workflows: bool = True) -> Kernel:
        """Return the host's kernel; `kernel`, `signing` and the others are the same."""
        return self.plain

    def user_id(self, name: str) -> str:
        """Return the id of the program's user *name*; raises `ConfigError`."""
        if self._users is None:
            return super().user_id(name)
        found = self._users(name)
        if found is None:
            raise ConfigError(f"there is no user {name[:80]!r}")
        return found

    @property
    def storage(self) -> Storage:
        """The storage of the host's kernel."""
        return self.plain.storage

    @property
    def whole(self) -> Kernel:
        """The host's kernel."""
        return self.plain


# -- the setting `app`: the host's own code ------------------------------------------------------


def load_app(target: str) -> Any:
    """Import the module, or the object in a module, that the setting ``app`` names."""
    try:
        return load_target(target)
    except (KeyboardInterrupt, ConfigError):
        raise
    except PluginError as error:
        raise ConfigError(f"app: {error.message}", hint=error.hint) from error
    except BaseException as error:  # SystemExit too: it must not end us without a message
        module = target.partition(":")[0]
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"app: there is no module {error.name!r}",
                hint="app is module:name, imported from app_dir (the config file's folder)",
            ) from None
        raise ConfigError(
            f"app: {module} can't be imported: {describe_failure(error)[0]}",
            hint="run again with --debug for the traceback",
        ) from error


def host_of(app: Any) -> Kernel | None:
    """Return the kernel that *app* is, has as its ``kernel``, or returns; None without a kernel."""
    from automate_kernel.kernel import Kernel

    if isinstance(app, ModuleType):
        app = getattr(app, "kernel", None)
    elif callable(app) and not isinstance(app, Kernel) and not _takes_kernel(app):
        app = app()
        if not isinstance(app, Kernel):
            raise ConfigError(
                f"app: it returned {type_name(app)}, not a Kernel",
                hint="return a Kernel, or take one as the argument",
            )
    return app if isinstance(app, Kernel) else None


def _takes_kernel(function: Callable[..., Any]) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return any(each.kind in positional and each.default is each.empty for each in parameters)


def set_up(kernel: Kernel, app: Any) -> None:
    """
    Register the functions of *app* with *kernel*.

    A function is called with the kernel, and so is a module's ``automate_configure``. Else an
    `Automation` in the module is added. Without that too, each public function of the module
    becomes an action.
    """
    if isinstance(app, ModuleType):
        collected = [each for each in vars(app).values() if isinstance(each, Automation)]
        if collected:
            for each in dict.fromkeys(collected):
                kernel.include(each)
            return
        configure = getattr(app, "automate_configure", None)
        if configure is None:
            _add_functions(kernel, app)
            return
        app = configure
    if not callable(app):
        raise ConfigError(
            f"app: {type_name(app)} is neither a Kernel, nor a function, nor a module"
        )
    app(kernel)


def _add_functions(kernel: Kernel, module: ModuleType) -> None:
    owner = module.__name__.rpartition(".")[2]
    public = getattr(module, "__all__", None)
    for name, value in vars(module).items():
        if not inspect.isfunction(value) or value.__module__ != module.__name__:
            continue
        if name.startswith("_") if public is None else name not in public:
            continue
        try:
            kernel.action(f"{owner}.{name}")(value)
        except AutomateError as error:
            raise ConfigError(
                f"app: {owner}.{name} can't be an action: {error.message}",
                hint=error.hint or "begin its name with _ to leave it out",
            ) from error


def require_shared(kernel: Kernel) -> None:
    """Raise `ConfigError` for a kernel whose storage other processes can't see."""
    if isinstance(kernel.storage, MemoryStorage):
        raise ConfigError(
            "app is a kernel that keeps everything in this process's memory",
            hint="give it a storage, or let app be a function that is called with the kernel",
        )

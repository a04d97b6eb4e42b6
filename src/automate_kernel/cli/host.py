"""The host's own code: the setting ``app``, and how its functions become actions."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from automate_kernel.errors import AutomateError, ConfigError, PluginError, type_name

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

__all__ = ["find_on", "host_of", "load_app", "require_shared", "set_up"]

CONFIGURE = "automate_configure"


def find_on(folder: Path) -> None:
    """Let modules be imported from *folder*."""
    text = str(folder)
    if text not in sys.path:
        sys.path.insert(0, text)


def load_app(target: str) -> Any:
    """
    What the setting ``app`` names: a module, or something in one. Raises `ConfigError`.
    """
    from automate_kernel.plugins.targets import describe_failure, load_target

    try:
        return load_target(target)
    except (KeyboardInterrupt, ConfigError):
        raise
    except ModuleNotFoundError as error:
        module = target.partition(":")[0]
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigError(
                f"app: there is no module {error.name!r}",
                hint="app is module:name, imported from app_dir (the config file's folder)",
            ) from None
        raise _broken(target, describe_failure(error)[0]) from error
    except PluginError as error:
        raise ConfigError(f"app: {error.message}", hint=error.hint) from error
    except BaseException as error:  # SystemExit too: it must not end us without a word
        raise _broken(target, describe_failure(error)[0]) from error


def _broken(target: str, text: str) -> ConfigError:
    return ConfigError(
        f"app: {target.partition(':')[0]} can't be imported: {text}",
        hint="run again with --debug for the traceback",
    )


def host_of(app: Any) -> Kernel | None:
    """The kernel that *app* brings along: itself, its ``kernel``, or what it makes; or None."""
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
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    parameters = inspect.signature(function).parameters.values()
    return any(each.kind in positional and each.default is each.empty for each in parameters)


def set_up(kernel: Kernel, app: Any) -> None:
    """
    Give *kernel* what *app* brings.

    A function is called with the kernel, and so is a module's ``automate_configure``. In a module
    without one, each public function of its own becomes an action.
    """
    if isinstance(app, ModuleType):
        configure = getattr(app, CONFIGURE, None)
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
    for name, function in _functions(module):
        try:
            kernel.action(f"{owner}.{name}")(function)
        except AutomateError as error:
            raise ConfigError(
                f"app: {owner}.{name} can't be an action: {error.message}",
                hint=error.hint or "begin its name with _ to leave it out",
            ) from error


def _functions(module: ModuleType) -> Iterator[tuple[str, Any]]:
    public = getattr(module, "__all__", None)
    for name, value in vars(module).items():
        own = inspect.isfunction(value) and value.__module__ == module.__name__
        if own and (name in public if public is not None else not name.startswith("_")):
            yield name, value


def require_shared(kernel: Kernel) -> None:
    """Raise `ConfigError` for a kernel whose storage other processes can't see."""
    from automate_kernel.storage import MemoryStorage

    if isinstance(kernel.storage, MemoryStorage):
        raise ConfigError(
            "app is a kernel that keeps everything in this process's memory",
            hint="give it a storage, or let app be a function that is called with the kernel",
        )

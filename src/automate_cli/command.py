"""The class of the commands of ``automate``: common options, examples, and errors that help."""

from __future__ import annotations

import getpass
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from automate_cli.command_output import written_output
from automate_cli.output import Output, kept_logging, log_to_stderr
from automate_cli.session import HostSession, Session
from automate_cli.settings import SETTINGS, Setting
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    StorageError,
    did_you_mean,
    exit_code,
)
from automate_kernel.secrets.redaction import redact_text

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _everywhere(default: Any, name: str, help: str, **more: Any) -> Any:
    panel = "Options of every command"
    return typer.Option(default, name, help=help, rich_help_panel=panel, **more)


CONFIG = _everywhere(
    None,
    "--config",
    "Settings; by default the nearest automate.toml or pyproject.toml.",
    metavar="FILE",
)
DATABASE = _everywhere(None, "--database", "The database, as SQLAlchemy writes it.", metavar="URL")
DEBUG = _everywhere(False, "--debug", "Show tracebacks and debug logs.")
_JSON = _everywhere(False, "--json", "Print JSON.")


class Context(typer.Context):
    """
    The context of a command: its session, its output, and whether it is to ``--debug``.

    *given* are the options that it shares with other commands, which its function doesn't take.
    """

    session: Session
    out: Output
    given: dict[str, Any]
    debug: bool = False

    def named(self, command: str) -> str:
        """Return the words with which the user calls *command*: ``automate outbox ls``, say."""
        return f"{self.program} {command}"

    @property
    def program(self) -> str:
        """The words in front of each command: ``automate``, say."""
        return str(self.find_root().info_name)

    def doubt(self, what: str, name: str, known: Iterable[str]) -> None:
        """Ask whether *name*, of which there is no *what* yet, is right; *known* are others."""
        near = did_you_mean(name, known)
        self.out.note(f"there is no {what} of {name} yet; is the name right? {near}".rstrip())

    @property
    def who(self) -> str:
        """The user of this machine who called the command."""
        try:
            return getpass.getuser()
        except (KeyError, OSError):  # a container's user may have no name
            return "?"

    def audited(
        self, kernel: Kernel, action: str, model: str, object_id: str, name: str,
        tenant: str | None, *, changed: bool = True, transaction: Any, **details: Any,
    ) -> None:  # fmt: skip
        """Write into the audit trail that the user did *action* to the object *name*."""
        kernel.audit.write(
            action, actor=self.who, actor_id="command line", model=model, object_id=object_id,
            object_repr=name, tenant_id=tenant, outcome="done" if changed else "nothing",
            details=details, transaction=transaction,
        )  # fmt: skip

    def missing(self, what: str, command: str) -> AutomateError:
        """Return the error for *what* is not there, among those that *command* lists."""
        hint = f"{self.named(command)} lists them"
        return AutomateError(ErrorCodes.NOT_FOUND, f"there is no {what}", hint=hint)


class TextCommand(TyperCommand):
    """
    A command with the options ``--config``, ``--database`` and ``--debug``.

    Its function is called with a `Context`. Errors end as a line, a hint and an exit code. A
    subclass may add the parameters of the function *shared*, but for those named in *without*.
    """

    context_class: type[Context] = Context
    common: ClassVar[tuple[str, ...]] = ("config", "database", "debug")
    shared: ClassVar[Callable[..., None] | None] = None
    without: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str | None, **options: Any) -> None:
        super().__init__(name, **options)
        # Each paragraph in a line: it is wrapped for the terminal's width.
        paragraphs = (" ".join(each.split()) for each in (self.help or "").split("\n\n"))
        self.help: str | None = "\n\n".join(paragraphs).replace("[", "\\[")
        shared = _parameters(self.shared) if self.shared is not None else []
        shared = [each for each in shared if each.name not in self.without]
        self._shared_names = [each.name for each in shared]
        self.params.extend(shared)
        for each in self.params:
            setting = setting_of(name, each.name) if each.param_type_name == "option" else None
            if setting is not None and each.default is None and setting.default not in (None, []):
                each.show_default = str(setting.default)  # type: ignore[attr-defined]
        self.params.extend(each for each in _parameters(_common) if each.name in self.common)

    def invoke(self, ctx: Any) -> Any:
        """Open a session, call the function, and report its errors."""
        ctx.given = {name: ctx.params.pop(name) for name in self._shared_names}
        given = {name: ctx.params.pop(name, None) for name in self.common}
        ctx.out = Output(json=bool(given.get("json")))
        if isinstance(ctx.obj, HostSession):
            ctx.session, ctx.out.colour = ctx.obj, ctx.obj.colour
            return super().invoke(ctx)
        before: dict[str, Any] = ctx.obj or {}  # the options in front of the command
        database = given["database"] or before.get("database")
        ctx.debug = bool(given["debug"] or before.get("debug"))
        flags = {"database": database} if database else {}
        ctx.session = Session(given["config"] or before.get("config"), flags)
        ctx.session.note = ctx.out.note
        with kept_logging(), reporting(debug=ctx.debug):
            log_to_stderr("debug" if ctx.debug else "error", brief=not ctx.debug)
            try:
                for name, near in ctx.session.settings.strays:
                    if near is not None:
                        text = f"{name} is no setting of ours (did you mean {near}?)"
                        ctx.out.note(f"warning: {text}")
                return super().invoke(ctx)
            finally:
                ctx.session.close()


class DataCommand(TextCommand):
    """A command that has ``--json`` too."""

    common: ClassVar[tuple[str, ...]] = (*TextCommand.common, "json")


def _common(
    config: str | None = CONFIG,
    database: str | None = DATABASE,
    debug: bool = DEBUG,
    json: bool = _JSON,
) -> None: ...


def _parameters(function: Callable[..., None]) -> list[Any]:
    """Return the parameters of a command that calls *function*, for one command."""
    return [copy(each) for each in _read(function)]


@cache  # reading a signature takes a millisecond, which each of a hundred commands would take
def _read(function: Callable[..., None]) -> list[Any]:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return list(typer.main.get_command(app).params)


def setting_of(command: str | None, parameter: str | None) -> Setting | None:
    """Return the setting that counts where an option is left out."""
    names = (f"{command}.{parameter}", f"worker.{parameter}", parameter)
    return next((SETTINGS[name] for name in names if name in SETTINGS), None)


class Commands(typer.Typer):
    """Commands of the program, or, with a name, of one of its commands."""

    def __init__(self, name: str | None = None, help: str | None = None, **more: Any) -> None:
        more |= {"no_args_is_help": True, "rich_markup_mode": "rich"}
        if help is not None:  # else it is the callback's
            more["help"] = help
            self.__doc__ = help  # by which a plugin's commands are described
        super().__init__(name=name, pretty_exceptions_enable=False, **more)

    def called(
        self, *examples: str, cls: type[TextCommand] = DataCommand, name: str | None = None
    ) -> Callable[[_Function], _Function]:
        """Return a decorator for a command, whose help ends with *examples* of calls."""
        shown = (f"  {each}".replace("[", "\\[") for each in examples)
        return self.command(name, cls=cls, epilog="\n".join(["[bold]Examples[/bold]", *shown]))


def mounted(
    app: typer.Typer,
    kernel_factory: Callable[[], Kernel],
    *,
    name: str,
    colour: bool,
    commands: Mapping[str, Any] | None = None,
    users: Callable[[str], str | None] | None = None,
) -> Callable[[Sequence[str]], int]:
    """Return *app* on the kernel of an application, whose users call it *name*; see `app_for`."""
    command = typer.main.get_command(app)
    adopt(command, name)

    def run(arguments: Sequence[str]) -> int:
        try:
            session = HostSession(kernel_factory, colour=colour, commands=commands, users=users)
            code = command.main(list(arguments), name, standalone_mode=False, obj=session)
            return int(code or 0)
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                return 2  # the help is printed
            raise ConfigError(error.format_message()) from None  # the parser's own

    return run


def adopt(command: Any, name: str) -> None:
    """Take out the options for which the host has its own, and let examples begin with *name*."""
    command.params = [each for each in command.params if each.name not in TextCommand.common]
    command.epilog = re.sub(r"\bautomate (?=\w)", f"{name} ", command.epilog or "")
    if isinstance(command, TyperGroup):
        for each in command.commands.values():
            adopt(each, name)


_FAILED = 1
_INTERRUPTED = 130
EXIT_CODES = {
    0: "done",
    _FAILED: "the work failed, a check found a failure, the database can't be used, or an item, "
    "execution, workflow or plugin that was named is not there",
    2: "called wrongly, or configured wrongly: an option, a file, a setting, a definition",
    _INTERRUPTED: "interrupted by Ctrl-C; a worker that finishes what runs ends with 0",
}
"""The meaning of each exit code of every command, `manage.py`'s too; see `exit_code`."""


class WorkFailedError(AutomateError):
    """The command ran, and its work failed."""

    default_code = ErrorCodes.FAILED_PRECONDITION


@contextmanager
def reporting(*, debug: bool) -> Iterator[None]:
    """Turn exceptions of the block into a line on standard error and an exit code."""
    try:
        with written_output():
            yield
    except AutomateError as error:
        if debug and not isinstance(error, WorkFailedError):
            _say(traceback.format_exc())
        _say(f"error: {error.message}")
        hint = _hint(error)
        if hint:
            _say(f"hint: {hint}")
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        _say("interrupted")
        raise typer.Exit(_INTERRUPTED) from None
    except MemoryError:
        _say("error: there is not enough memory for this")
        _say("hint: ask for less at once, or give the process more memory")
        raise typer.Exit(_FAILED) from None
    except Exception as error:
        if type(error).__module__.startswith(("typer", "click")):
            raise  # its own way of ending
        text = redact_text(f"{type(error).__name__}: {error}").split("\n")[0]
        if debug:
            _say(traceback.format_exc())
        _say(f"error: this should not happen: {text}")
        if not debug:
            _say(_REPORT_IT)
        raise typer.Exit(_FAILED) from None


_REPORT_IT = """\
hint: run the same command with --debug, and report the traceback together with the output of \
automate --version"""


def _say(text: str) -> None:
    print(f"{redact_text(text)}\n", end="", file=sys.stderr)


def _hint(error: AutomateError) -> str | None:
    if error.hint is None and isinstance(error, StorageError):
        return "is the server running, and is it the right one (automate doctor --settings)?"
    if error.hint is not None and error.hint.startswith("create our tables"):
        return "run automate db migrate, or add the tables to your Alembic migrations"
    return error.hint

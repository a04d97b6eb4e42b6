"""How a function becomes a command: common options, examples, and errors that help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from copy import copy
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.models import OptionInfo

from automate_kernel.cli import definitions
from automate_kernel.cli.definitions import Argument, Command, Group, Option, paragraphs
from automate_kernel.cli.failures import reporting
from automate_kernel.cli.logs import log_to_stderr
from automate_kernel.cli.output import Output
from automate_kernel.cli.session import Session
from automate_kernel.cli.settings import SETTINGS, Setting

__all__ = ["ConfigFile", "Context", "Database", "Debug", "add", "command", "group"]

_PANEL = "Options of every command"

ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings; by default the nearest automate.toml or pyproject.toml.",
        rich_help_panel=_PANEL,
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database", metavar="URL", help="The database, as SQLAlchemy writes it.",
        rich_help_panel=_PANEL,
    ),
]  # fmt: skip
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show tracebacks and debug logs.", rich_help_panel=_PANEL),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=_PANEL)]


class Context(definitions.Context):
    """What a command of ``automate`` is called with, which may need settings, too."""

    session: Session


def group(name: str, text: str) -> typer.Typer:
    """A command that has commands of its own."""
    return typer.Typer(
        name=name, help=text, no_args_is_help=True, rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )  # fmt: skip


def add(app: typer.Typer, definition: Command | Group) -> None:
    """Make what is defined a command of *app*."""
    if isinstance(definition, Group):
        own = group(definition.name, definition.help)
        for each in definition.commands:
            add(own, each)
        app.add_typer(own)
        return
    function, examples, data = definition.function, definition.examples, definition.data
    command(app, definition.name, examples=examples, data=data)(function)
    for name in definition.also:
        command(app, name, examples=examples, data=data, hidden=True)(function)


def command(
    app: typer.Typer,
    name: str,
    *,
    examples: Sequence[str] = (),
    data: bool = False,
    hidden: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """
    Make a function the command *name* of *app*. It is called with a `Context` first.

    Its docstring is the help and *examples* stand below. With *data* it has ``--json``.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        wrapped = _wrapped(function, data=data)
        lines = ["[bold]Examples[/bold]", *(f"  {_escaped(each)}" for each in examples)]
        epilog = "\n".join(lines) if examples else None
        app.command(name, help=_help(function), epilog=epilog, hidden=hidden)(wrapped)
        return function

    return decorate


def _help(function: Callable[..., None]) -> str:
    return "\n\n".join(map(_escaped, paragraphs(function)))


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


def _wrapped(function: Callable[..., None], *, data: bool) -> Callable[..., None]:
    def run(
        ctx: typer.Context,
        config: str | None,
        database: str | None,
        *,
        debug: bool,
        json: bool = False,
        **given: Any,
    ) -> None:
        before: dict[str, Any] = ctx.obj or {}  # the options in front of the command
        database = database or before.get("database")
        debug = debug or bool(before.get("debug"))
        session = Session(
            config or before.get("config"), {"database": database} if database else {}
        )
        context = Context(session, Output(json=json), debug=debug)
        with reporting(debug=debug, redact=context.redact):
            log_to_stderr("debug" if debug else "error", brief=not debug)
            try:
                _warn_of_strays(context)
                function(context, **given)
            finally:
                context.session.close()

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    extra: list[tuple[str, Any, Any]] = [
        ("config", ConfigFile, None),
        ("database", Database, None),
        ("debug", Debug, False),
    ]
    if data:
        extra.append(("json", _Json, False))
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        *(each.replace(kind=keyword, annotation=_typers(each, function.__name__)) for each in own),
        *(
            inspect.Parameter(name, keyword, default=default, annotation=annotation)
            for name, annotation, default in extra
        ),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__name__, run.__module__ = function.__name__, function.__module__
    return run


def _typers(parameter: inspect.Parameter, command: str) -> Any:
    """What typer makes of a parameter with an `Option` or `Argument` of ours, or with its own."""
    annotation = parameter.annotation
    how = get_args(annotation)[1] if get_origin(annotation) is Annotated else None
    told: dict[str, Any] = {
        name: getattr(how, name, None) for name in ("help", "metavar", "min", "max")
    }
    if isinstance(how, Option):
        made = typer.Option(*how.names, **told)
    elif isinstance(how, Argument):
        made = typer.Argument(**told)
    elif isinstance(how, OptionInfo):
        made = copy(how)
    else:
        return annotation
    setting = _setting(parameter, command)
    if setting is not None and isinstance(made, OptionInfo):
        made.show_default = str(setting.default)
    return Annotated[get_args(annotation)[0], made]


def _setting(parameter: inspect.Parameter, command: str) -> Setting | None:
    """The setting that counts where the option is left out."""
    if parameter.default is not None:
        return None
    for name in (f"{command}.{parameter.name}", f"worker.{parameter.name}", parameter.name):
        setting = SETTINGS.get(name)
        if setting is not None:
            return setting if setting.default is not None else None
    return None


def _warn_of_strays(context: Context) -> None:
    for name, near in context.session.settings.strays:
        if near is not None:
            context.out.note(f"warning: {name} is no setting of ours (did you mean {near}?)")

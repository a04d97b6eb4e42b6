"""``automate call``: one action or capability, called now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automate_cli.command import Commands, Context, DataCommand, WorkFailedError
from automate_cli.command_input import json_input
from automate_cli.input_options import InputOptions
from automate_cli.inputs import YES, argument, confirm, flag, option
from automate_cli.output import Columns, Output, as_json
from automate_cli.session import HostSession, Session
from automate_kernel.base.errors import (
    AutomateError,
    ConfigError,
    ErrorCodes,
    PluginError,
    SecretError,
)
from automate_kernel.operations.exposure import hiding_secrets
from automate_kernel.operations.outputs import answered_output
from automate_kernel.secrets.masking import masked_by_schema
from automate_kernel.secrets.redaction import redact_shown

if TYPE_CHECKING:
    from automate_kernel.kernel import Kernel
    from automate_kernel.operations.spec import OperationSpec

app: Commands = Commands()


class CallCommand(DataCommand):
    """
    A command whose last options are those of the operation that its first argument names.

    ``--help`` after a name shows them, and the shell completes names and options.
    """

    def __init__(self, name: str | None, **options: Any) -> None:
        # What it doesn't know is left in ctx.args.
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
        options["context_settings"] = {**(options.get("context_settings") or {}), **settings}
        super().__init__(name, **options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the words, for the help of an operation."""
        ctx.meta["automate.words"] = list(args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, and the options of the operation that is named."""
        super().format_help(ctx, formatter)
        words = ctx.meta.get("automate.words", [])
        given, rest, _ = self.make_parser(ctx).parse_args(list(words))
        name = given.get("operation") or next((each for each in rest if each[:1] != "-"), None)
        if name is None:
            return
        with _opened(ctx, given) as session:
            try:
                _show_operation(session, Output(), str(name), self.own_options)
            except AutomateError as error:
                print(f"error: {error}")

    @property
    def own_options(self) -> list[str]:
        """The options of the command itself."""
        return [*(each for parameter in self.params for each in parameter.opts), "--help"]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the options of the operation that is named."""
        found = super().shell_complete(ctx, incomplete)
        name = ctx.params.get("operation")
        if name is None or not incomplete.startswith("-"):
            return found
        # The class of typer's version: it has its own home in each.
        item = type(super().shell_complete(ctx, "--")[0])
        with contextlib.suppress(Exception), _opened(ctx, ctx.params) as session:
            spec = session.in_memory(workflows=False).operation(name)
            made = InputOptions(spec, self.own_options)
            found += [
                item(each, help=field.description)
                for each, field in zip(made.names(), made.fields, strict=True)
                if each.startswith(incomplete)
            ]
        return found


@contextlib.contextmanager
def _opened(ctx: Any, given: Mapping[str, Any]) -> Iterator[Session]:
    """Yield the session for looking at operations while the command itself doesn't run."""
    found = ctx.find_object(HostSession)
    if found is not None:
        yield found
        return
    before = ctx.obj if isinstance(ctx.obj, Mapping) else {}
    database = given.get("database") or before.get("database")
    session = Session(
        given.get("config") or before.get("config"), {"database": database} if database else {}
    )
    try:
        yield session
    finally:
        session.close()


def _complete_name(ctx: Any, incomplete: str) -> list[str]:
    """Return the names that begin with *incomplete*: keys of plugins, after the dot operations."""
    with contextlib.suppress(Exception), _opened(ctx, ctx.params) as session:
        operations = session.in_memory(workflows=False).operations
        owner, dot, _ = incomplete.partition(".")
        names, owners = operations.function_names(), operations.owners()
        if not dot:
            names += [f"{each}." for each in owners]
        elif owner in owners and (cls := operations.plugin_class(f"{owner}.x")) is not None:
            # Only the plugin that is named is imported.
            names += [f"{owner}.{spec.name}" for spec in cls.operation_specs()]
        return sorted({each for each in names if each.startswith(incomplete)})
    return []


@app.called(
    "automate call shop.greet --name Ann",
    "automate call slack.post_message --channel C1 --text hi --dry-run",
    "automate call slack.post_message --help   # its options",
    'echo \'{"name": "Ann"}\' | automate call shop.greet --input -',
    cls=CallCommand,
)
def call(
    context: Context,
    operation: str = argument(
        "The action or capability: slack.post_message.", autocompletion=_complete_name
    ),
    input: str | None = option(
        None, "The input as JSON, a file with it, or - for stdin.", metavar="JSON|FILE|-"
    ),
    dry_run: bool = flag("--dry-run", "Check the input and show it, and call nothing."),
    choices: str | None = option(None, "List what this field may be.", metavar="FIELD"),
    search: str = option("", "With --choices: only those with this text.", metavar="TEXT"),
    idempotency_key: str | None = option(
        None, "A key that the service does the work once for.", metavar="KEY"
    ),
    tenant: str | None = option(None, "The tenant for whom it is called."),
    timeout: float | None = option(None, "Seconds after which to give up.", min=0.001),
    yes: bool = YES,
) -> None:
    """
    Call an action or capability, and print its output.

    Each field of its input is an option: --channel C1. A list is an option that is repeated, a
    field of an inner object is --customer.name, and --flag or --no-flag is a boolean. A field that
    is called as an option below is written --input.NAME. Options count more than --input.

    Text may be $secret:KEY. A destructive operation asks before it is called. Exits with 1 if it
    fails, and with 2 if its input is wrong.
    """
    session, out = context.session, context.out
    looking = dry_run or choices is not None
    # An action may emit, or write in its transaction.
    kernel = session.in_memory(workflows=False) if looking else session.for_calls
    spec = kernel.operation(operation, tenant_id=tenant)
    command: Any = context.command
    made = InputOptions(spec, command.own_options)
    given = _merged(_whole(input), made.read(context.args))
    if choices is not None:
        with hiding_secrets(given, spec.json_schema()):
            found = kernel.options(
                operation, choices, search=search, values=given, tenant_id=tenant
            )
        columns: Columns = {"VALUE": "value", "LABEL": "label"}
        out.listing(found, columns, "there is nothing to choose from", _option_data)
        return
    checked = _checked(context, kernel, operation, given, tenant)
    if dry_run:
        _show_input(out, operation, spec, checked)
        return
    if spec.destructive:
        confirm(f"{operation} can't be taken back. Call it?", yes=yes)
    if spec.transactional:
        session.create_tables()
    asked: Any = {"tenant_id": tenant, "idempotency_key": idempotency_key, "timeout": timeout}
    _show_output(out, _called(kernel, spec, operation, given, **asked))


def _show_input(out: Output, operation: str, spec: OperationSpec, checked: Any) -> None:
    shown = redact_shown(masked_by_schema(checked, spec.json_schema()))
    out.data({"operation": operation, "input": shown, "destructive": spec.destructive})
    out.line(f"{operation} would be called with:")
    out.line(as_json(shown))


def _show_output(out: Output, output: Any) -> None:
    out.data(output)
    if isinstance(output, str):
        out.line(output)
    elif output is not None:
        out.line(as_json(output))


def _option_data(each: Any) -> dict[str, Any]:
    data: dict[str, Any] = each.to_json()
    return data


def _whole(given: str | None) -> dict[str, Any]:
    """Return the input that ``--input`` gives: JSON itself, or in a file or standard input."""
    if given is None:
        return {}
    text = given.lstrip()
    as_text = text.startswith(("{", "[", '"')) and not Path(given).is_file()
    whole = json_input(given, "--input") if as_text else json_input(given)
    if not isinstance(whole, dict):
        raise ConfigError("--input must be a JSON object", hint='write {"field": value}')
    return whole


def _merged(whole: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return *whole* with the *options* in place, those of inner objects too."""
    for name, value in options.items():
        inner = whole.get(name)
        both = isinstance(inner, dict) and isinstance(value, Mapping)
        whole[name] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return whole


def _checked(
    context: Context, kernel: Kernel, operation: str, given: Mapping[str, Any], tenant: str | None
) -> Any:
    """Return the checked input, secrets unread; raises the error for wrong usage."""
    try:
        return kernel.preview(operation, given, tenant_id=tenant)
    except AutomateError as error:
        if error.code is not ErrorCodes.INVALID_ARGUMENT:
            raise
        remedy = f"{context.named('call')} {operation} --help shows its options"
        hint = error.hint or remedy
        raise ConfigError(error.message, hint=hint) from None


def _called(kernel: Kernel, spec: OperationSpec, operation: str, given: Any, **options: Any) -> Any:
    try:
        # What it logs goes to the terminal too, and so does its output.
        with hiding_secrets(given, spec.json_schema()) as hidden:
            output = kernel.invoke(operation, given, **options)
        answered_output(output, f"output of {operation!r}")
        return redact_shown(hidden.redact_value(output, cut=False))
    except AutomateError as error:
        if isinstance(error, (ConfigError, SecretError, PluginError)):
            raise
        # Whatever its code says: the command was called rightly, and the work failed.
        again = "the same call may succeed later" if error.retryable else None
        text = f"{error.code.value}: {error.message}"
        raise WorkFailedError(message=text, hint=error.hint or again) from None


def _show_operation(session: Session, out: Output, name: str, taken: list[str]) -> None:
    kernel = session.in_memory(workflows=False)
    spec = kernel.operation(name)
    hints = [word for word in ("read_only", "idempotent", "destructive") if getattr(spec, word)]
    out.line(f"{name}  ({', '.join(hints).replace('_', '-')})" if hints else name)
    if spec.description:
        out.line(spec.description)
    out.line()
    InputOptions(spec, taken).show(out, kernel.choices.dynamic_fields(name))

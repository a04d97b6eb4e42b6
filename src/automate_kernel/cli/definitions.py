"""What commands are, whatever reads their arguments: functions with options, alone or in groups."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Union, get_args, get_origin

if TYPE_CHECKING:
    from automate_kernel.cli.output import Output
    from automate_kernel.kernel import Kernel
    from automate_kernel.storage import Storage

__all__ = [
    "Argument",
    "Command",
    "Context",
    "Group",
    "KernelSession",
    "Option",
    "Parameter",
    "paragraphs",
]


class KernelSession(Protocol):
    """What a command works with."""

    @property
    def kernel(self) -> Kernel:
        """The kernel with everything."""

    @property
    def plain(self) -> Kernel:
        """A kernel to look at and steer what is stored, though a plugin may be broken."""

    @property
    def bare(self) -> Storage:
        """The storage as it is: no table is made for looking at it."""

    def redact(self, text: str) -> str:
        """*text* without the secrets that were read so far."""


class Context:
    """
    What a command is called with: its session, where it prints, and what it is called.

    *prefix* stands in front of each command's name, and *source* is who emits its events.
    """

    def __init__(
        self,
        session: KernelSession,
        out: Output,
        *,
        debug: bool = False,
        prefix: str = "automate ",
        source: str = "cli",
    ) -> None:
        self.session = session
        self.out = out
        self.debug = debug
        self.prefix = prefix
        self.source = source

    def named(self, command: str) -> str:
        """How the user calls *command*: ``outbox ls``, say."""
        return f"{self.prefix}{command}"

    def redact(self, text: str) -> str:
        """*text* without the secrets that were read so far."""
        return self.session.redact(text)


class Option:
    """
    Says of a parameter that it is an option: ``Annotated[int, Option(help="How many.")]``.

    Without *names* it is called as the parameter. A boolean one takes no value.
    """

    def __init__(
        self,
        *names: str,
        help: str,
        metavar: str | None = None,
        min: float | None = None,
        max: float | None = None,
    ) -> None:
        self.names: tuple[str, ...] = names
        self.help: str = help
        self.metavar: str | None = metavar
        self.min: float | None = min
        self.max: float | None = max


@dataclass(frozen=True)
class Argument:
    """Says of a parameter that it is a positional argument."""

    help: str
    metavar: str | None = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command's function."""

    name: str
    type: type
    many: bool
    required: bool
    default: Any
    how: Option | Argument

    @property
    def flags(self) -> tuple[str, ...]:
        """What an option is called on the command line."""
        names = self.how.names if isinstance(self.how, Option) else ()
        return names or (f"--{self.name.replace('_', '-')}",)


@dataclass(frozen=True)
class Command:
    """
    A function that is called with a `Context` and what its parameters take.

    Its docstring is the help and *examples* stand below. With *data* it has ``--json``. It can be
    called by the names in *also*, too.
    """

    name: str
    function: Callable[..., None]
    examples: Sequence[str] = ()
    data: bool = False
    also: Sequence[str] = ()

    @property
    def help(self) -> list[str]:
        """The paragraphs of its help."""
        return paragraphs(self.function)

    def parameters(self) -> list[Parameter]:
        """What it takes, the context left out."""
        given = list(inspect.signature(self.function, eval_str=True).parameters.values())[1:]
        return [_parameter(each) for each in given]


@dataclass(frozen=True)
class Group:
    """A command that has commands of its own."""

    name: str
    help: str
    commands: list[Command] = field(default_factory=list)

    def command(
        self, name: str, *, examples: Sequence[str] = (), also: Sequence[str] = ()
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Make a function its command *name*, with ``--json``; see `Command`."""

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            self.commands.append(Command(name, function, examples, True, also))
            return function

        return decorate


def paragraphs(function: Callable[..., None]) -> list[str]:
    """A docstring's paragraphs, each in a line: they are wrapped for the terminal's width."""
    return [" ".join(each.split()) for each in (inspect.getdoc(function) or "").split("\n\n")]


def _parameter(given: inspect.Parameter) -> Parameter:
    if get_origin(given.annotation) is not Annotated:
        raise TypeError(f"{given.name} is neither an Option nor an Argument")
    taken, how = get_args(given.annotation)
    if get_origin(taken) in (Union, types.UnionType):
        (taken,) = (each for each in get_args(taken) if each is not type(None))
    many = get_origin(taken) is list
    required = given.default is given.empty
    return Parameter(
        given.name,
        get_args(taken)[0] if many else taken,
        many,
        required,
        None if required else given.default,
        how,
    )

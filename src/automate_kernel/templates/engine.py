"""The template engine: it compiles a workflow's texts once, and renders them many times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from automate_kernel.base.errors import AutomateError, TemplateError, type_name
from automate_kernel.base.forks import new_lock
from automate_kernel.secrets.handles import Sealed, SecretRef, check_key
from automate_kernel.templates.context import EnvironmentResolver, TemplateContext
from automate_kernel.templates.filters import FilterRegistry, default_filters
from automate_kernel.templates.limits import MAX_DIGITS, Budget, Limits
from automate_kernel.templates.secret_references import EnvReference, Piece, split
from automate_kernel.templates.values import json_copy

if TYPE_CHECKING:
    from automate_kernel.templates.bounded_filters import RenderContext
    from automate_kernel.templates.sandbox import Sandbox


@dataclass(slots=True)
class _Rendering:
    """One rendering of a template: its context, and its budget."""

    context: TemplateContext
    budget: Budget
    # Made by the first part that needs them.
    variables: dict[str, Any] | None = None
    _passing: Budget | None = None

    @property
    def passing(self) -> Budget:
        """The budget of values that are passed on as they are."""
        limits = self.budget.limits
        if limits.passed <= limits.output:
            return self.budget
        if self._passing is None:
            self._passing = Budget(replace(limits, output=limits.passed))
        return self._passing


class _Part(Protocol):
    """A piece of a compiled tree."""

    def render(self, rendering: _Rendering) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Constant:
    """A value without templates, or a reference to a secret."""

    value: Any

    def render(self, rendering: _Rendering) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class _Items:
    """A list."""

    parts: tuple[_Part, ...]

    def render(self, rendering: _Rendering) -> Any:
        return [part.render(rendering) for part in self.parts]


@dataclass(frozen=True, slots=True)
class _Tree:
    """A mapping, whose keys may be templates too."""

    pairs: tuple[tuple[_Key, _Part], ...]
    path: str

    def render(self, rendering: _Rendering) -> Any:
        result: dict[str, Any] = {}
        for key, part in self.pairs:
            name = key if isinstance(key, str) else self._name(key.render(rendering), result)
            result[name] = part.render(rendering)
        return result

    def _name(self, name: Any, taken: dict[str, Any]) -> str:
        where = self.path or "template"
        if not isinstance(name, str):
            raise TemplateError(f"{where}: a key is text, not {type(name).__name__}")
        if name in taken:
            raise TemplateError(f"{where}: two keys are the same once rendered")
        return name


@dataclass(frozen=True, slots=True)
class _ReferenceText:
    """Text with ``$secret:`` or ``$env:`` in it, and no syntax of Jinja's."""

    pieces: tuple[Piece, ...]
    path: str

    def render(self, rendering: _Rendering) -> Any:
        env = rendering.context.env or EnvironmentResolver()
        pieces = [self._known(piece, env) for piece in self.pieces]
        rendering.budget.emit(sum(len(piece) for piece in pieces if isinstance(piece, str)))
        if all(isinstance(piece, str) for piece in pieces):
            return "".join(map(str, pieces))
        return pieces[0] if len(pieces) == 1 else Sealed(*pieces)

    def _known(self, piece: Piece, env: EnvironmentResolver) -> str | SecretRef:
        if not isinstance(piece, EnvReference):
            return piece
        try:
            value = env.get(piece.name)
            if value is None:
                raise TemplateError(f"environment variable {piece.name!r} is not set")
            return value
        except TemplateError as error:
            problem = explain(error, path=self.path, source="")
        raise problem


@dataclass(frozen=True, slots=True)
class _Program:
    """A compiled Jinja template, whose value is text."""

    environment: Sandbox
    template: Any
    path: str
    source: str

    def render(self, rendering: _Rendering) -> Any:
        pieces: Iterator[Any] | None = None
        try:
            scope = self._scope(rendering)
            pieces = self.template.root_render_func(scope)
            return json_copy(self.value(pieces, scope), self.budget(rendering))
        except Exception as error:
            problem = explain(
                error, path=self.path, source=self.source, template=self.template, pieces=pieces
            )
        # Not in the handler: the error it handles, with the values in its frames, would be kept
        # as this one's context.
        raise problem

    def value(self, pieces: Iterator[Any], scope: RenderContext) -> Any:
        return scope.concat(pieces)

    def budget(self, rendering: _Rendering) -> Budget:
        return rendering.budget

    def _scope(self, rendering: _Rendering) -> RenderContext:
        if rendering.variables is None:
            rendering.variables = self.environment.variables(rendering.context)
        return self.environment.scope(rendering.variables, rendering.budget)


class _Expression(_Program):
    """A single ``{{ expression }}``, whose value keeps its type; a text keeps a line break too."""

    __slots__ = ()

    def value(self, pieces: Iterator[Any], scope: RenderContext) -> Any:
        found = next(pieces)
        rest = list(pieces) if isinstance(found, str) else []
        return scope.concat([found, *rest]) if rest else found


class _Path(_Expression):
    """A single ``{{ steps.a.output }}``: it makes no value, and passes a value on."""

    __slots__ = ()

    def budget(self, rendering: _Rendering) -> Budget:
        return rendering.passing


def _is_path(tree: Any) -> bool:
    """Return True if Jinja's *tree* of a single expression is no more than a name, or its field."""
    from jinja2 import nodes

    node, *rest = tree.body[0].nodes
    if rest:
        return False
    while isinstance(node, nodes.Getattr) or (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const)
    ):
        node = node.node
    return isinstance(node, nodes.Name)


def _is_constant(part: _Part) -> bool:
    if isinstance(part, _Tree):
        return all(isinstance(key, str) and _is_constant(value) for key, value in part.pairs)
    if isinstance(part, _Items):
        return all(map(_is_constant, part.parts))
    return isinstance(part, _Constant)


_Key = str | _Program | _ReferenceText
_JINJA = re.compile(r"\{[{%#]")
_MARKS = re.compile(r"\{[{%#]|\$(?:secret|env):")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def is_template(text: str) -> bool:
    """Return True if *text* has to be compiled; any other, such as a file's, is its own value."""
    return _MARKS.search(text) is not None


class Template:
    """
    A compiled tree. `render` may be called from several threads.

    *secret_keys* and *env_keys* are the literal names that it reads in any context.
    """

    __slots__ = ("_limits", "_root", "env_keys", "secret_keys")

    def __init__(
        self, root: _Part, limits: Limits, secrets: frozenset[str], env: frozenset[str]
    ) -> None:
        self._root = root
        self._limits = limits
        self.secret_keys: frozenset[str] = secrets
        self.env_keys: frozenset[str] = env

    @property
    def constant(self) -> bool:
        """True if it reads nothing: any context will do."""
        return _is_constant(self._root)

    def render(self, context: TemplateContext) -> Any:
        """
        Return the tree as new JSON, with a `SecretRef` or `Sealed` text in a secret's place.

        `reveal` puts their values in, right before the call. Raises `TemplateError`.
        """
        return self._root.render(_Rendering(context, Budget(self._limits)))


class Condition(Template):
    """A compiled ``if:``."""

    __slots__ = ()

    def test(self, context: TemplateContext) -> bool:
        """Return True if the condition holds: Jinja's truth, so empty text and lists are false."""
        value = self.render(context)
        if isinstance(value, (SecretRef, Sealed)):
            raise TemplateError("a condition can't depend on a secret")
        return bool(value)


class TemplateEngine:
    """
    Compiles an author's text with *filters*, within *limits*.

    One engine serves all threads. Jinja is imported with the first text that needs it.
    """

    def __init__(
        self, filters: FilterRegistry = default_filters, *, limits: Limits | None = None
    ) -> None:
        self.filters = filters
        self.limits: Limits = limits if limits is not None else Limits()
        self._sandbox: Sandbox | None = None
        self._lock = new_lock()

    def compile(self, value: Any, path: str = "") -> Template:
        """
        Compile the JSON-like tree *value*, in which any text may be a template.

        Text that is one ``{{ expression }}`` keeps the expression's type. All checks that need no
        values are made here. *path* is the tree's place, for messages: ``steps.notify.input``.
        Raises `TemplateError`.
        """
        compiler = _Compiler(self)
        try:
            root = compiler.part(value, path)
        except RecursionError:
            raise TemplateError(f"{path or 'template'}: it is nested too deeply") from None
        return compiler.finished(Template, root)

    def condition(self, text: str | bool | None, path: str = "") -> Condition:
        """
        Compile a condition from an expression, bare or in ``{{ }}``.

        Text around the braces is refused: it would make the condition always true. None, a
        missing ``if:``, holds.
        """
        compiler = _Compiler(self)
        if text is None or isinstance(text, bool):
            return compiler.finished(Condition, _Constant(text is not False))
        if not isinstance(text, str):
            raise TemplateError(f"{path or 'condition'}: it is text, not {type(text).__name__}")
        return compiler.finished(Condition, compiler.condition(text, path))

    def sandbox(self) -> Sandbox:
        """Return the environment that templates run in, made at the first call."""
        with self._lock:
            if self._sandbox is None:
                from automate_kernel.templates.sandbox import Sandbox

                self._sandbox = Sandbox(self.filters, self.limits)
            return self._sandbox


T = TypeVar("T", bound=Template)


class _Compiler:
    """One compilation: makes the parts, and collects the names that they read."""

    def __init__(self, engine: TemplateEngine) -> None:
        self._engine = engine
        self.secrets: set[str] = set()
        self.env: set[str] = set()

    def finished(self, kind: type[T], root: _Part) -> T:
        limits = self._engine.limits
        return kind(root, limits, frozenset(self.secrets), frozenset(self.env))

    def part(self, value: Any, path: str) -> _Part:
        if isinstance(value, str):
            return self.text(value, path)
        if isinstance(value, Mapping):
            pairs = (self._pair(key, item, path) for key, item in value.items())
            return _Tree(tuple(pairs), path)
        if isinstance(value, (list, tuple)):
            items = (self.part(item, f"{path}[{index}]") for index, item in enumerate(value))
            return _Items(tuple(items))
        if value is None or isinstance(value, (bool, int, float)):
            return _Constant(value)
        if isinstance(value, (SecretRef, Sealed)):
            self.secrets |= value.keys if isinstance(value, Sealed) else {value.key}
            return _Constant(value)
        raise TemplateError(f"{path or 'template'}: {type_name(value)} is not JSON")

    def _pair(self, key: Any, value: Any, path: str) -> tuple[_Key, _Part]:
        if not isinstance(key, str):
            raise TemplateError(f"{path or 'template'}: a key is text, not {type(key).__name__}")
        where = _joined(path, key)
        keys = _Compiler(self._engine)
        name = keys.text(key, where)
        if keys.secrets:
            raise TemplateError(f"{where}: a key can't be a secret")
        self.env |= keys.env
        part = self.part(value, where)
        return name.value if isinstance(name, _Constant) else name, part

    def text(self, text: str, path: str) -> _Constant | _ReferenceText | _Program:
        if not is_template(text):
            return _Constant(text)
        limit = self._engine.limits.source
        if len(text) > limit:
            message = f"{path or 'template'}: it has more than {limit:,} characters"
            raise TemplateError(message, hint="Limits.source bounds a template")
        try:
            if not _JINJA.search(text):
                return self._marked(text, path)
            return self._checked(self._engine.sandbox().parse(text), text, path)
        except Exception as error:
            problem = explain(error, path=path, source=text)
        raise problem

    def _marked(self, text: str, path: str) -> _Constant | _ReferenceText:
        pieces = split(text)
        for piece in pieces:
            if isinstance(piece, SecretRef):
                self.secrets.add(check_key(piece.key))
            elif isinstance(piece, EnvReference):
                self.env.add(piece.name)
        if pieces[1:] == ["\n"]:
            del pieces[1]  # the end of a block of YAML
        if len(pieces) == 1 and not isinstance(pieces[0], EnvReference):
            return _Constant(pieces[0])
        return _ReferenceText(tuple(pieces), path)

    def condition(self, text: str, path: str) -> _Part:
        try:
            sandbox = self._engine.sandbox()
            if not text.strip():
                raise TemplateError("a condition can't be empty", hint="leave it out, or say true")
            tree = sandbox.parse(text.strip()) if _JINJA.search(text) else sandbox.expression(text)
            program = self._checked(tree, text, path, secrets=False)
            if not isinstance(program, _Expression):
                hint = "put one pair of {{ }} around the whole condition, or leave them out"
                raise TemplateError("there is text outside the expression", hint=hint)
            return program
        except Exception as error:
            problem = explain(error, path=path, source=text)
        raise problem

    def _checked(self, tree: Any, text: str, path: str, *, secrets: bool = True) -> _Program:
        sandbox = self._engine.sandbox()
        checker = sandbox.checked(tree, secrets=secrets)
        self.secrets |= checker.secrets
        self.env |= checker.variables
        kind: type[_Program] = _Program
        if checker.whole:
            kind = _Path if _is_path(tree) else _Expression
        return kind(sandbox, sandbox.from_string(tree), path, text)


def _joined(path: str, key: str) -> str:
    if not _IDENTIFIER.fullmatch(key):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


# -- errors -----------------------------------------------------------------------------------

# Messages of Python's that name types, operators and parameters only.
_HARMLESS = re.compile(
    r"unsupported operand|bad operand type|can only concatenate|'[<>=!]+' not supported"
    r"|'\w+' object (?:is not|has no|can't|cannot|does not)|object of type '\w+' has no len"
    r"|\S+\(\) (?:missing|takes|got an unexpected|got multiple|expected)|cannot unpack"
    r"|[\w.]+ (?:expected|takes) (?:at (?:least|most) |exactly )?\d+ argument"
)


def explain(
    error: Exception, *, path: str, source: str, template: Any = None, pieces: Any = None
) -> TemplateError:
    """
    Return a `TemplateError` with the place and the reason of *error*, without any value.

    *template* is Jinja's, and *pieces* its generator, which stopped at the line in question unless
    the template's own code failed. Raise the result outside the ``except`` block: the original
    error holds values, and must not travel along as its context.
    """
    message, hint = _message(error)
    line = _line(error, template, pieces)
    several = line is not None and "\n" in source.rstrip("\n")
    where = f"{path or 'template'}, line {line}" if several else (path or "template")
    details = {"path": path, "line": line}
    problem = TemplateError(f"{where}: {message}", hint=hint, details=details)
    # An author's filter has the place of its failure.
    problem.trace, problem.group = getattr(error, "trace", None), getattr(error, "group", None)
    return problem


# Parts of Jinja's messages, and what is meant where people write them as in other languages.
_MEANT = (
    ("char '&'", "write: a and b"),
    ("char '!'", "write: not a; or a != b"),
    ("char '?'", "write: a if condition else b; or a | default(b)"),
    ("char '$'", "names have no $: write event.payload, or steps.<id>.output"),
    ("char '`'", "write: 'a ' ~ b"),
    ('char "\'"', "a text ends with the quote that it began with"),
    ("got '='", "two values are compared by =="),
    ("unexpected '='", "two values are compared by =="),
    ("unexpected '}'", "an expression ends with }}"),
    ("got '|'", "write: a or b"),
    ("end of template", "an expression ends with }}, and a statement with %}"),
)


def _message(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, AutomateError):
        return error.message, error.hint
    if isinstance(error, ZeroDivisionError):
        return "division by zero", None
    if isinstance(error, RecursionError):
        return "it is nested too deeply", None
    if isinstance(error, ValueError) and "limit" in str(error) and "digits" in str(error):
        return f"it has a number of over {MAX_DIGITS:,} digits", "write it in quotes, as text"
    if isinstance(error, TypeError) and _HARMLESS.match(str(error)):
        return str(error), None
    from jinja2.exceptions import TemplateSyntaxError, UndefinedError

    from automate_kernel.templates.bounded_filters import FilterError

    if isinstance(error, TemplateSyntaxError):
        message = error.message or "it is not valid"
        return message, next((hint for part, hint in _MEANT if part in message), None)
    if isinstance(error, UndefinedError):
        return error.message or "a value is missing", "use | default(...) if it may be missing"
    if str(error) == "cannot assign attribute on non-namespace object":  # Jinja's own words
        return "only a namespace's names can be set", "{% set ns = namespace(count=0) %}"
    if isinstance(error, FilterError):
        return error.message or "a filter failed", error.hint
    return f"it failed with {type(error).__name__}", None


def _line(error: Exception, template: Any, pieces: Any) -> int | None:
    line: int | None = getattr(error, "lineno", None)  # a syntax error
    if isinstance(error, AutomateError) and "line" in error.details:
        line = error.details["line"]
    if line is not None or template is None:
        return line
    frame = getattr(pieces, "gi_frame", None)
    code_line = frame.f_lineno if frame is not None else None
    traceback = error.__traceback__
    while traceback is not None:
        if "__jinja_template__" in traceback.tb_frame.f_globals:
            code_line = traceback.tb_lineno
        traceback = traceback.tb_next
    return template.get_corresponding_lineno(code_line) if code_line else None

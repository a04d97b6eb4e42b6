"""Compile the templates of a workflow once, and render them many times."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from automate_kernel.errors import TemplateError, type_name
from automate_kernel.secrets.handles import Sealed, SecretRef, check_key
from automate_kernel.templates.context import TemplateContext
from automate_kernel.templates.filters import FilterRegistry, default_filters
from automate_kernel.templates.limits import Limits
from automate_kernel.templates.marks import EnvMark, SecretMark, split
from automate_kernel.templates.parts import (
    Constant,
    Expression,
    Items,
    Marked,
    Part,
    Program,
    Rendering,
    Tree,
)
from automate_kernel.templates.problems import explain

if TYPE_CHECKING:
    from automate_kernel.templates.sandbox import Sandbox

__all__ = ["Condition", "Template", "TemplateEngine"]

_JINJA = re.compile(r"\{[{%#]")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Template:
    """
    A compiled tree. `render` may be called from several threads.

    *secret_keys* and *env_keys* are the literal names that it reads, whatever it is rendered with.
    """

    __slots__ = ("_limits", "_root", "env_keys", "secret_keys")

    def __init__(
        self, root: Part, limits: Limits, secrets: frozenset[str], env: frozenset[str]
    ) -> None:
        self._root = root
        self._limits = limits
        self.secret_keys: frozenset[str] = secrets
        self.env_keys: frozenset[str] = env

    def render(self, context: TemplateContext) -> Any:
        """
        The tree as JSON of its own, with a `SecretRef` or `Sealed` text wherever a secret goes.

        `reveal` puts their values in, right before the call. Raises `TemplateError`.
        """
        return self._root.render(Rendering(context, self._limits))


class Condition(Template):
    """A compiled ``if:``."""

    __slots__ = ()

    def test(self, context: TemplateContext) -> bool:
        """Whether the condition holds: Jinja's truth, so empty text and lists are false."""
        value = self.render(context)
        if isinstance(value, (SecretRef, Sealed)):
            raise TemplateError("a condition can't depend on a secret")
        return bool(value)


class TemplateEngine:
    """
    Compiles author's text with *filters*, within *limits*.

    One engine serves all threads. Jinja is imported when the first text that needs it is
    compiled.
    """

    def __init__(
        self, filters: FilterRegistry = default_filters, *, limits: Limits | None = None
    ) -> None:
        self.filters = filters
        self.limits: Limits = limits if limits is not None else Limits()
        self._sandbox: Sandbox | None = None
        self._lock = threading.Lock()

    def compile(self, value: Any, path: str = "") -> Template:
        """
        A template of the JSON-like tree *value*, in which any text may be a template.

        Text that is one ``{{ expression }}`` keeps the expression's type. Everything that can be
        checked without values is checked here. *path* is where the tree stands, for
        messages: ``steps.notify.input``. Raises `TemplateError`.
        """
        compiler = _Compiler(self)
        try:
            root = compiler.part(value, path)
        except RecursionError:
            raise TemplateError(f"{path or 'template'}: it is nested too deeply") from None
        return compiler.finished(Template, root)

    def condition(self, text: str | bool | None, path: str = "") -> Condition:
        """
        A condition from an expression, bare or in ``{{ }}``.

        Text around the braces is refused: it would make the condition always true. None, a
        missing ``if:``, holds.
        """
        compiler = _Compiler(self)
        if text is None or isinstance(text, bool):
            return compiler.finished(Condition, Constant(text is not False))
        if not isinstance(text, str):
            raise TemplateError(f"{path or 'condition'}: it is text, not {type(text).__name__}")
        return compiler.finished(Condition, compiler.condition(text, path))

    def sandbox(self) -> Sandbox:
        """The environment that templates run in, made at the first call."""
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
        self._secrets: set[str] = set()
        self._env: set[str] = set()

    def finished(self, kind: type[T], root: Part) -> T:
        limits = self._engine.limits
        return kind(root, limits, frozenset(self._secrets), frozenset(self._env))

    def part(self, value: Any, path: str) -> Part:
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, Mapping):
            pairs = (self._pair(key, item, path) for key, item in value.items())
            return Tree(tuple(pairs), path)
        if isinstance(value, (list, tuple)):
            items = (self.part(item, f"{path}[{index}]") for index, item in enumerate(value))
            return Items(tuple(items))
        if value is None or isinstance(value, (bool, int, float)):
            return Constant(value)
        if isinstance(value, (SecretRef, Sealed)):
            self._secrets |= value.keys if isinstance(value, Sealed) else {value.key}
            return Constant(value)
        raise TemplateError(f"{path or 'template'}: {type_name(value)} is not JSON")

    def _pair(self, key: Any, value: Any, path: str) -> tuple[str | Program | Marked, Part]:
        if not isinstance(key, str):
            raise TemplateError(f"{path or 'template'}: a key is text, not {type(key).__name__}")
        where = _joined(path, key)
        keys = _Compiler(self._engine)
        name = keys._text(key, where)
        if keys._secrets:
            raise TemplateError(f"{where}: a key can't be a secret")
        self._env |= keys._env
        part = self.part(value, where)
        return name.value if isinstance(name, Constant) else name, part

    def _text(self, text: str, path: str) -> Constant | Marked | Program:
        limit = self._engine.limits.source
        if len(text) > limit:
            message = f"{path or 'template'}: it has more than {limit:,} characters"
            raise TemplateError(message, hint="Limits.source bounds it")
        try:
            return self._program(text, path) if _JINJA.search(text) else self._marked(text, path)
        except Exception as error:
            problem = explain(error, path=path, source=text)
        raise problem

    def _marked(self, text: str, path: str) -> Constant | Marked:
        if "$" not in text:
            return Constant(text)
        pieces: list[str | SecretRef | EnvMark] = []
        for piece in split(text):
            if isinstance(piece, SecretMark):
                self._secrets.add(check_key(piece.key))
                pieces.append(SecretRef(piece.key))
            else:
                if isinstance(piece, EnvMark):
                    self._env.add(piece.name)
                pieces.append(piece)
        if pieces[1:] == ["\n"]:
            del pieces[1]  # the end of a block of YAML
        if len(pieces) == 1 and not isinstance(pieces[0], EnvMark):
            return Constant(pieces[0])
        return Marked(tuple(pieces), path)

    def _program(self, text: str, path: str) -> Program:
        sandbox = self._engine.sandbox()
        return self._made(sandbox.prepared(sandbox.parse(text)), text, path)

    def condition(self, text: str, path: str) -> Part:
        try:
            sandbox = self._engine.sandbox()
            if not text.strip():
                raise TemplateError("a condition can't be empty", hint="leave it out, or say true")
            tree = sandbox.parse(text.strip()) if _JINJA.search(text) else None
            prepared = sandbox.prepared(tree or sandbox.expression(text), secrets=False)
            if not prepared.whole:
                hint = "put one pair of {{ }} around the whole condition, or leave them out"
                raise TemplateError("there is text outside the expression", hint=hint)
            return self._made(prepared, text, path)
        except Exception as error:
            problem = explain(error, path=path, source=text)
        raise problem

    def _made(self, prepared: Any, text: str, path: str) -> Program:
        self._secrets |= prepared.secrets
        self._env |= prepared.variables
        kind = Expression if prepared.whole else Program
        template = prepared.compiled()
        return kind(self._engine.sandbox(), template, path=path, source=text)


def _joined(path: str, key: str) -> str:
    if not _IDENTIFIER.fullmatch(key):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key

"""Classes, functions and docstrings as Markdown."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["NOTE", "class_of", "function_of", "prose"]

NOTE = "<!-- Written by docs/generate.py: change the docstrings, not this page. -->"


def prose(docstring: str | None) -> str:
    """A docstring as Markdown; drawings are kept, and code is left to the pages that run it."""
    if not docstring:
        return ""
    paragraphs: list[str] = []
    text = inspect.cleandoc(docstring)
    literal = False
    for paragraph in re.split(r"\n\s*\n", text):
        indented = paragraph.startswith("    ")
        if literal and indented:
            if re.search("[─│├└▶▼▲═]", paragraph):
                paragraphs.append(f"```text\n{paragraph}\n```")
            continue
        if paragraph.startswith("==="):
            continue
        literal = paragraph.rstrip().endswith("::")
        shown = re.sub(r"(?<=\w)\s*::$", ".", paragraph.rstrip()).removesuffix("::").rstrip()
        if shown:
            paragraphs.append(_inline(shown))
    return "\n\n".join(paragraphs)


def _inline(text: str) -> str:
    text = re.sub(r"``(.+?)``", lambda m: f"`{m[1]}`", text, flags=re.DOTALL)
    if re.search(r"^[*-] ", text, re.MULTILINE):
        return text
    return re.sub(r"\s*\n\s*", " ", text)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, *, method: bool) -> str:
    """The call as one writes it: parameters with their types, and what comes back."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    parts = [
        _parameter(a, d) for a, d in zip(positional, [*defaults, *given.defaults], strict=True)
    ]
    if given.posonlyargs:
        parts.insert(len(given.posonlyargs), "/")
    if method and parts:
        parts = parts[1:]
    if given.vararg:
        parts.append("*" + _parameter(given.vararg, None))
    elif given.kwonlyargs:
        parts.append("*")
    parts += [_parameter(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        parts.append("**" + _parameter(given.kwarg, None))
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    prefix = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    line = f"{prefix}{name}({', '.join(parts)}){returns}"
    if len(line) <= 92:
        return line
    inner = "".join(f"    {part},\n" for part in parts)
    return f"{prefix}{name}(\n{inner}){returns}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation is not None:
        text += f": {ast.unparse(argument.annotation)}"
    if default is not None:
        text += f" = {ast.unparse(default)}" if argument.annotation else f"={ast.unparse(default)}"
    return text


def _decorators(node: Any) -> set[str]:
    return {ast.unparse(d).split("(")[0].rpartition(".")[2] for d in node.decorator_list}


def function_of(node: Any, name: str, level: int, *, method: bool) -> Iterator[str]:
    yield f"{'#' * level} `{name}`"
    shown = name.rpartition(".")[2] if method else name
    yield f"```text\n{_signature(node, shown, method=method)}\n```"
    yield prose(ast.get_docstring(node, clean=False))


def class_of(node: ast.ClassDef, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{node.name}`"
    bases = [ast.unparse(base) for base in node.bases]
    bases = [base for base in bases if base not in ("ABC", "Part") and base[0] != "_"]
    methods = [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    init = next((m for m in methods if m.name == "__init__"), None)
    if init is not None:
        yield f"```text\n{_signature(init, node.name, method=True)}\n```"
    if bases:
        yield f"Derives from {', '.join(f'`{base}`' for base in bases)}."
    yield prose(ast.get_docstring(node, clean=False))
    if fields := list(_fields(node)):
        yield "\n".join(fields)
    if init is not None:
        yield from _attributes(node.name, init, level + 1)
    for method in methods:
        kinds = _decorators(method)
        if method.name.startswith("_") or kinds & {"overload", "setter", "model_serializer"}:
            continue
        if "fixture" in kinds or method.name.startswith("test_"):
            continue
        if kinds & {"property", "cached_property"}:
            yield f"{'#' * (level + 1)} `{node.name}.{method.name}`"
            returns = f"*Property*, `{ast.unparse(method.returns)}`. " if method.returns else ""
            yield returns + prose(ast.get_docstring(method, clean=False))
            continue
        static = bool(kinds & {"staticmethod"})
        yield from function_of(method, f"{node.name}.{method.name}", level + 1, method=not static)


def _attributes(
    owner: str, init: ast.FunctionDef | ast.AsyncFunctionDef, level: int
) -> Iterator[str]:
    """An entry for each public attribute that the constructor sets and that has a docstring."""
    for index, item in enumerate(init.body):
        target = item.target if isinstance(item, ast.AnnAssign) else None
        if isinstance(item, ast.Assign):
            target = item.targets[0]
        if not isinstance(target, ast.Attribute) or target.attr.startswith("_"):
            continue
        below = init.body[index + 1] if index + 1 < len(init.body) else None
        if not (isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)):
            continue
        kind = ""
        if isinstance(item, ast.AnnAssign):
            kind = ast.unparse(item.annotation)
        elif isinstance(item, ast.Assign) and isinstance(item.value, ast.Call):
            kind = ast.unparse(item.value.func)
        yield f"{'#' * level} `{owner}.{target.attr}`"
        yield f"*Attribute*, `{kind}`. " + prose(str(below.value.value))


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """A list entry for each public attribute of a class, with what stands below it."""
    for index, item in enumerate(node.body):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name, kind = item.target.id, ast.unparse(item.annotation)
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            name, kind = item.targets[0].id, ""
        else:
            continue
        if name.startswith("_") or name in ("model_config", "Meta"):
            continue
        default = ""
        if item.value is not None and len(ast.unparse(item.value)) <= 40:
            default = f" = {ast.unparse(item.value)}"
        below = node.body[index + 1] if index + 1 < len(node.body) else None
        shown = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            shown = ": " + prose(str(below.value.value)).replace("\n\n", " ")
        typed = f": {kind}" if kind and not kind.startswith("Annotated") else ""
        yield f"- `{name}{typed}{default}`{shown}"

"""Reads our modules without importing them: what they export, and where it is defined."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["SOURCE", "all_of", "find", "path_of", "tree"]

SOURCE = Path(__file__).resolve().parents[2] / "src"


def path_of(module: str) -> Path | None:
    base = SOURCE.joinpath(*module.split("."))
    for file in (base / "__init__.py", base.with_suffix(".py")):
        if file.exists():
            return file
    return None


@cache
def tree(module: str) -> ast.Module:
    file = path_of(module)
    if file is None:
        raise LookupError(f"there is no module {module}")
    return ast.parse(file.read_text(encoding="utf-8"))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):  # `if TYPE_CHECKING:` holds the imports of lazy names
            yield from _statements(node.body)
        else:
            yield node


def all_of(module: str) -> list[str]:
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def find(module: str, name: str) -> tuple[str, list[ast.stmt], int] | None:
    """The module that defines *name*, its statements, and which of them does."""
    body = list(_statements(tree(module).body))
    for index, node in reversed(list(enumerate(body))):
        if name in _defined(node):
            return module, body, index
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    source = _absolute(module, node)
                    if path_of(f"{source}.{alias.name}") is not None:
                        return None  # a module
                    return find(source, alias.name) if path_of(source) else None
    return None


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    file, parts = path_of(module), module.split(".")
    up = node.level - (file is not None and file.name == "__init__.py")
    parts = parts[: len(parts) - up] if up else parts
    return ".".join([*parts, *([node.module] if node.module else [])])

"""The words of statuses stand in one place, and SQL takes them from there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from automate_kernel.storage.statuses import ExecutionStatus, ItemStatus, ItemWait, StepStatus

ROOT = Path(__file__).parents[2] / "src" / "automate_kernel"
WORDS = {word.value for each in (ItemStatus, ExecutionStatus, StepStatus) for word in each}
IN_SQL = re.compile(rf"\'({'|'.join(sorted(WORDS))})\'")
# The same words with another meaning: codes of errors, and the values that clients may send.
OTHERS = {"base/errors.py", "outbox/store.py", "http/api/inputs.py"}
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")
    if path.name != "statuses.py"
)  # fmt: skip


def texts_of(tree: ast.AST) -> list[tuple[int, str]]:
    """Return the texts in *tree* with their lines, without docstrings."""
    docs = {
        id(node.value) for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


def waits_of(tree: ast.AST) -> list[tuple[int, str]]:
    """Return the texts that stand beside ``waiting_for``: compared, written, or asked for."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        beside: list[ast.AST] = []
        if isinstance(node, ast.Compare) and "waiting_for" in ast.unparse(node.left):
            beside = [*node.comparators]
        elif isinstance(node, ast.Dict):
            beside = [
                value for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "waiting_for"
            ]  # fmt: skip
        elif isinstance(node, ast.keyword) and node.arg == "waiting_for":
            beside = [node.value]
        elif isinstance(node, ast.Call) and node.args[:1] and len(node.args) == 3:
            first = node.args[0]
            if isinstance(first, ast.Constant) and first.value == "waiting_for":
                beside = [node.args[2]]
        found += [text for each in beside for text in texts_of(each)]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_other_module_spells_a_status(module: str) -> None:
    """A status that is renamed is renamed in one place, in Python and in SQL."""
    tree = ast.parse((ROOT / module).read_text())
    waits = {word.value for word in ItemWait}
    spelt = [(line, text) for line, text in waits_of(tree) if text in waits]
    if module not in OTHERS:
        spelt += [
            (line, text) for line, text in texts_of(tree) if text in WORDS or IN_SQL.search(text)
        ]
    assert not spelt, f"src/automate_kernel/{module}: take it from storage/statuses.py"


def test_it_is_a_status_of_its_own() -> None:
    """The words are text in the database, and each vocabulary says which of its own are final."""
    assert str(ItemStatus.FAILED) == f"{StepStatus.FAILED}" == "FAILED"
    assert [each for each in ExecutionStatus if each.finished] == [
        "COMPLETED",
        "FAILED",
        "CANCELLED",
    ]
    assert not StepStatus.WAITING.finished
    assert max(len(word.value) for word in ItemWait) <= 8

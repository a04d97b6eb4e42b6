"""
The rules of the house (CONTRIBUTING), as far as the source can be asked.

Floors are import-linter's to check, underscores ruff's (SLF001), types mypy's. Here stands the rest.
Each failure says what to do.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
ROOTS = [ROOT / "src", *sorted(ROOT.glob("plugins/*/src"))]

LONGEST_FUNCTION, AIM = 60, 50
"""Lines of a function: as many as it may have, and as it should."""

MOST_ANCESTORS = 3

SHARED_NAMES = {
    "Meta": "Django looks for it by this name",
    "Command": "Django looks for it by this name",
    "OutboxItem": "the specification's name: the kernel's value, and Django's model",
    "SkipLockedClaimOutboxStore": "the specification's name, once for each adapter",
    "OptimisticClaimOutboxStore": "the specification's name, once for each adapter",
    "OutboxReaper": "the specification's name, once for each adapter",
    "Pages": "Django's admin makes an address of a model's name; and how a service pages its answers",
    "User": "a person: who looks at the pages, and whom GitHub names in its answers",
}
"""Class names that may exist more than once, each with its reason."""

MANY_ANCESTORS = {
    "OutboxStoreContract": "a suite for pytest is put together by inheritance: a base per concept",
}
"""Kernel classes that may have more of ours above them, each with its reason."""

QUESTION = re.compile(r"(What|Who|Whose|Whom|How|Whether|Where|Why)\b")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


class Module(NamedTuple):
    """One module of the source."""

    name: str
    path: Path
    tree: ast.Module
    nodes: list[ast.AST]

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    def at(self, node: ast.AST) -> str:
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@cache
def modules() -> dict[str, Module]:
    """Every module of src and plugins, without Django's migrations, which are written once."""
    found = {}
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if "migrations" in parts:
                continue
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            tree = ast.parse(path.read_text("utf-8"))
            found[name] = Module(name, path, tree, list(ast.walk(tree)))
    return found


def report(problems: list[str], remedy: str) -> None:
    """Fail with all problems and what to do about them."""
    if problems:
        pytest.fail(f"{remedy}\n" + "\n".join(f"  {each}" for each in problems), pytrace=False)


# -- imports ---------------------------------------------------------------------------------


@cache
def passed_on(package: str) -> dict[str, tuple[str, str]]:
    """The names that a package only passes on, each with the module and the name it has there."""
    module = modules()[package]
    if not module.is_package:
        return {}
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in module.nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def home(module: str, name: str) -> str | None:
    """The module that `from module import name` means, looking through packages that pass it on."""
    if f"{module}.{name}" in modules():
        return f"{module}.{name}"
    if module not in modules():
        return None
    further = passed_on(module).get(name)
    return home(*further) if further else module


def arrows(module: Module) -> dict[str, set[str]]:
    """The modules that one imports, with the names, wherever in it the import stands."""
    found: dict[str, set[str]] = defaultdict(set)
    for node in module.nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                target = home(node.module, alias.name)
                if target and target != module.name:
                    found[target].add(alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in modules() and alias.name != module.name:
                    found[alias.name].add("*")
    return found


def circles(graph: dict[str, dict[str, set[str]]]) -> list[list[str]]:
    """The strongly connected parts of *graph* with more than one module (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            part = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(part) > 1:
                found.append(sorted(part))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_modules_import_each_other_in_no_circle():
    """Imports below TYPE_CHECKING and inside functions count as well."""
    graph = {name: arrows(module) for name, module in modules().items()}
    report(
        [
            f"{name} imports {', '.join(sorted(graph[name][target]))} from {target}"
            for circle in circles(graph)
            for name in circle
            for target in sorted(graph[name])
            if target in circle
        ],
        "Modules import each other in a circle. Move what both need to a module below them, pass "
        "the object as an argument, or merge them if they are one concept:",
    )


def test_every_room_stands_on_a_floor():
    """import-linter checks the direction of imports, and knows each module of the top level."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    floors = {
        room.strip().strip("()")
        for contract in contracts["contracts"]
        if contract["type"] == "layers"
        for floor in contract["layers"]
        for room in re.split(r"[|:]", floor)
    }
    rooms = {name for name in modules() if re.fullmatch(r"automate_kernel\.[a-z_]+", name)}
    report(
        sorted(rooms - floors),
        "These have no floor. Add them to the layers in pyproject.toml, [tool.importlinter]:",
    )


# -- classes and functions -------------------------------------------------------------------


def classes() -> Iterator[tuple[Module, ast.ClassDef]]:
    for module in modules().values():
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                yield module, node


def test_a_class_name_exists_once():
    """Whoever searches for a name finds one class."""
    places = defaultdict(list)
    for module, node in classes():
        places[node.name].append(module.at(node))
    report(
        [
            f"{name}: {', '.join(where)}"
            for name, where in sorted(places.items())
            if len(where) > 1 and name not in SHARED_NAMES
        ],
        "More than one class has this name. Rename all but one, by what each is in its room; where "
        "a framework or the specification wants the name, add it to SHARED_NAMES with the reason:",
    )
    report(
        sorted(name for name in SHARED_NAMES if len(places[name]) < 2),
        "These are in SHARED_NAMES and exist only once. Take them out of it:",
    )


def test_few_classes_stand_above_one():
    """A class of the kernel is read in one place, not put together from mixins."""
    bases = {}
    for module, node in classes():
        if module.name.startswith("automate_kernel"):
            names = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
            bases[node.name] = {ast.unparse(name).rpartition(".")[2] for name in names}

    def above(name: str) -> set[str]:
        ours = {base for base in bases[name] if base in bases and base != name}
        return ours.union(*map(above, ours))

    report(
        [
            f"{name}: {', '.join(sorted(above(name)))}"
            for name in sorted(bases)
            if len(above(name)) > MOST_ANCESTORS and name not in MANY_ANCESTORS
        ],
        f"More than {MOST_ANCESTORS} classes of ours stand above these. Compose: hold a part in "
        "an attribute, or call plain functions:",
    )


def test_functions_are_short():
    """A function fits on a screen."""
    lengths = [
        (node.end_lineno - node.lineno + 1, f"{module.at(node)} {node.name}")
        for module in modules().values()
        for node in module.nodes
        if isinstance(node, FUNCTIONS)
    ]
    longest = sorted((each for each in lengths if each[0] > AIM), reverse=True)
    if longest and longest[0][0] > LONGEST_FUNCTION:
        report(
            [f"{lines} lines: {where}" for lines, where in longest],
            f"A function has more than {LONGEST_FUNCTION} lines. Give a part of it a name of its "
            f"own; all above {AIM}:",
        )


def test_twins_take_the_same_arguments():
    """`aemit` takes what `emit` takes: names, order, defaults and types are written out in both."""
    different = []
    for module, owner in classes():
        methods = {node.name: node for node in owner.body if isinstance(node, FUNCTIONS)}
        for name, twin in methods.items():
            plain = methods.get(name[1:]) if name.startswith("a") else None
            if plain is None or name.startswith("_") or not isinstance(twin, ast.AsyncFunctionDef):
                continue
            if ast.unparse(plain.args) != ast.unparse(twin.args):
                different.append(
                    f"{module.at(twin)} {owner.name}.{name}({ast.unparse(twin.args)})\n"
                    f"    but {plain.name}({ast.unparse(plain.args)})"
                )
    report(different, "Twins whose signatures differ. Write the same arguments out in both:")


# -- words -----------------------------------------------------------------------------------


def docstrings(module: Module) -> Iterator[tuple[ast.AST, str, bool, str]]:
    """Each docstring: its place, its owner's name, True if that is public, and the text."""

    def visit(node: ast.AST, path: tuple[str, ...], public: bool) -> Iterator[tuple]:
        text = ast.get_docstring(node)
        if text:
            yield node, ".".join(path), public, text
        inside = public and not isinstance(node, FUNCTIONS)
        for before, after in zip(node.body, node.body[1:]):
            attribute = isinstance(before, (ast.Assign, ast.AnnAssign)) and isinstance(
                after, ast.Expr
            )
            if attribute and isinstance(after.value, ast.Constant):
                target = before.target if isinstance(before, ast.AnnAssign) else before.targets[0]
                name = ast.unparse(target)
                shown = inside and not name.startswith("_")
                yield (
                    after,
                    ".".join((*path, name)),
                    shown,
                    inspect.cleandoc(str(after.value.value)),
                )
        for inner in ast.walk(node) if isinstance(node, FUNCTIONS) else node.body:
            if isinstance(inner, DEFINITIONS) and inner is not node:
                shown = inside and not inner.name.startswith("_")
                yield from visit(inner, (*path, inner.name), shown)

    yield from visit(module.tree, (module.name,), True)


@pytest.mark.parametrize("public", [True, False], ids=["public", "private"])
def test_a_docstring_begins_with_no_question(public: bool):
    """It begins with a verb (function), a noun (class, property, module) or "Return True if"."""
    report(
        [
            f"{module.at(node)} {owner}: {text.splitlines()[0]}"
            for module in modules().values()
            for node, owner, shown, text in docstrings(module)
            if shown is public and QUESTION.match(text)
        ],
        "Begin with a verb (function), a noun (class, property, module) or 'Return True if':",
    )


FACES = {"automate_django.api.v1.base", "automate_django.tasks.versions"}
"""Modules that pass on names of others: the specification's, and whichever package has them."""


def test_only_what_is_documented_lists_what_it_gives_away():
    """Elsewhere a public name is one without an underscore; a second list of them goes stale."""
    reference = (ROOT / "docs" / "_generate" / "api.py").read_text("utf-8")
    faces = FACES | set(re.findall(r"automate_[\w.]+", reference))
    report(
        [
            module.at(node)
            for module in modules().values()
            if not module.is_package and module.name not in faces
            for node in module.nodes
            if isinstance(node, ast.Name) and node.id == "__all__"
        ],
        "Take the list out, or give the module a page in the reference (docs/_generate/api.py):",
    )


def test_marks_stand_in_files_of_tests():
    """The check reads only such files where it runs what is marked: others it would pass over."""
    marked = re.compile(r"mark\.(long|plugins)\b")
    files = [
        path for folder in ("src", "tests", "plugins") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    strays = [
        path.relative_to(ROOT)
        for path in files
        if not path.name.startswith("test_") and marked.search(path.read_text(encoding="utf-8"))
    ]
    assert strays == [], "write pytest.mark.long or pytest.mark.plugins in the file of the tests"


def test_no_module_gives_type_checkers_every_name() -> None:
    """With a ``__getattr__`` that they see, a misspelt import is anything, and so is all it types."""
    problems = [
        module.at(node)
        for module in modules().values()
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
    ]
    report(problems, "Write the __getattr__ of a module under `if not TYPE_CHECKING:`.")


STATUSES = "automate_kernel/storage/statuses.py"
SAY_STATUSES = {
    STATUSES: "where the words are",
    "automate_kernel/base/errors.py": "the code of an error",
    "automate_kernel/outbox/store.py": "the codes of errors without one",
    "automate_kernel/http/api/inputs.py": "a client's error lists what the type accepts",
    "automate_testing/contracts/": "a contract says what users see, by itself",
    "automate_testing/simulation/": "a model says what is right, by itself",
    "automate_django/migrations/": "a migration stays as it was",
    "automate_django/tasks/": "Django's words for the results of tasks",
    "automate_cli/overview.py": "titles of columns",
}
"""Where a status may be written as a text, each with its reason."""


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts that stand in a file of Python, or in quotes in a template, by their lines."""
    source = path.read_text("utf-8")
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value
        return
    for number, line in enumerate(source.splitlines(), 1):
        for text in re.findall(r"""["']([A-Z]+)["']""", line):
            yield number, text


def test_statuses_are_written_in_one_place() -> None:
    """A status that is added or renamed is found by its enum, in pages and commands too."""
    folder = ROOT / "src"
    words = {text for _, text in texts_of(folder / STATUSES) if text.isupper()}
    found = [
        f"{path.relative_to(folder)}:{number}: {text}"
        for kind in ("*.py", "*.html", "*.js")
        for path in folder.rglob(kind)
        if not path.relative_to(folder).as_posix().startswith(tuple(SAY_STATUSES))
        for number, text in texts_of(path)
        if text in words
    ]
    assert len(words) == 10
    assert not found, "Take them from storage/statuses.py:\n  " + "\n  ".join(found)

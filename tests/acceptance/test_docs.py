"""The documentation is true: its code runs, its links lead somewhere, its reference is whole."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
import warm_forks
from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.joinpath("docs").rglob("*.md"),
        *ROOT.joinpath("plugins").glob("*/README.md"),
    ]
)
# By pages and their programs.
IMPORTED_ONCE = (*warm_forks.COMMAND_LINE, "django.core.management", "django.db.models")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def _load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = _load("docs_runner", HERE / "docs_runner.py")
generate = _load("docs_generate", ROOT / "docs" / "generate.py")


def _plugins_of(page: Path) -> list[Requirement]:
    """Return the plugins of ours that the page's install line asks for."""
    line = r"^\$ (?:.+ && )?(?:python -m )?pip install (.+?)(?: && .+)?$"
    found = re.search(line, page.read_text(), re.MULTILINE)
    words = found[1].replace("'", "").replace('"', "").split() if found else []
    asked = [Requirement(word) for word in words if re.match(r"automate-\w", word)]
    return [each for each in asked if each.name != "automate-kernel"]


def _marked(name: str):
    """The page *name*, marked if the group of development doesn't bring what it installs."""
    brought = all(str(each) == "automate-http" for each in _plugins_of(ROOT / name))
    return pytest.param(name, marks=() if brought else pytest.mark.plugins)


def _not_installed(page: Path) -> list[str]:
    """Return what the page's install line asks for and this environment lacks."""
    missing = []
    for asked in _plugins_of(page):
        try:
            needed = [Requirement(each) for each in requires(asked.name) or []]
        except PackageNotFoundError:
            missing.append(str(asked))
            continue
        for each in needed:
            if each.marker and any(
                each.marker.evaluate({"extra": extra}) for extra in asked.extras
            ):
                try:
                    distribution(each.name)
                except PackageNotFoundError:
                    missing.append(each.name)
    return missing


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where pages and their programs are forked, with what most of them import."""
    folder = tmp_path_factory.mktemp("forks")
    environment = runner.environment() | {"PYTHONPATH": ""}
    with warm_forks.serving(folder / "socket", IMPORTED_ONCE, environment) as address:
        yield address


@pytest.mark.parametrize("name", [_marked(name) for name in NAMES])
def test_code_blocks_run(
    name: str,
    forks: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> None:
    """Every code block of the page runs, and prints what the page says."""
    if missing := _not_installed(ROOT / name):
        lacking = f"needs {', '.join(missing)}"
        # Only in a run without the group may one be left out.
        marked = request.node.get_closest_marker("plugins")
        if not marked or request.config.getoption("--with-plugins"):
            pytest.fail(lacking)
        pytest.skip(f"{lacking}: uv run --group plugins pytest --with-plugins -m plugins")
    arguments = [str(HERE / "docs_runner.py"), f"--forks={forks}", str(ROOT / name)]
    with (tmp_path_factory.mktemp("printed") / "output").open("w+") as output:
        try:
            code: int | TimeoutError = warm_forks.run(
                forks, arguments, runner.environment() | {"PYTHONPATH": ""}, output, output,
                folder=tmp_path, seconds=280,
            )  # fmt: skip
        except TimeoutError as late:
            code = late
        output.seek(0)
        printed = output.read()
    assert code == 0, printed[-8000:]


@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_of_a_known_language(name: str) -> None:
    """No block is passed over because nobody knows how to check it, or can't be found."""
    text = (ROOT / name).read_text()
    found = list(runner.blocks(text))
    assert {block.language for block in found} <= set(runner.RUNNERS)
    fences = len(re.findall(r"^ *```", text, re.MULTILINE))
    assert fences == 2 * sum(block.language != "hidden" for block in found)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """A link to another page, or to a heading of one, finds it."""
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} is not there"
        if anchor:
            assert anchor in _anchors(linked), f"{linked.name} has no heading #{anchor}"


def test_every_page_is_in_the_index() -> None:
    """A reader who starts at docs/index.md can reach every page."""
    reached, new = set(), [ROOT / "docs" / "index.md"]
    while new:
        page = new.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", _prose(page)):
            linked = (page.parent / target).resolve()
            if linked.exists() and linked not in reached:
                new.append(linked)
    assert not set(ROOT.joinpath("docs").rglob("*.md")) - reached


@pytest.mark.parametrize("path", sorted(generate.PAGES))
def test_generated_pages_are_up_to_date(path: str) -> None:
    """The reference says what the code says; `python docs/generate.py` writes it anew."""
    assert generate.page(path) == (ROOT / "docs" / path).read_text(), "run docs/generate.py"


def _page(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text()


def test_every_setting_is_in_the_reference() -> None:
    """The kernel's arguments, Django's settings with their keys, and nothing that is not there."""
    from automate_kernel import Kernel

    page = _page("settings.md")
    arguments = [name for name in inspect.signature(Kernel).parameters]
    assert not [name for name in arguments if f"| `{name}` |" not in page]
    KEYS = _django("automate_django.conf").KEYS
    wanted = {name for name, keys in KEYS.items() if not keys}
    wanted |= {f'{name}["{key}"]' for name, keys in KEYS.items() for key in keys}
    assert set(re.findall(r"`(AUTOMATE_[A-Z_]+(?:\[\"[A-Za-z_]+\"\])?)`", page)) == wanted


def test_every_field_of_a_workflow_is_in_the_reference() -> None:
    """Each field is in the table of its part."""
    from automate_kernel.workflows import Workflow
    from automate_kernel.workflows.definition.fields import DefinitionModel
    from automate_kernel.workflows.definition.model import CodeWorkflow
    from automate_kernel.workflows.definition.triggers import TRIGGERS

    page = _page("workflow-file.md")
    parts = {"FormField": "Approval", "Notice": "Approval", "RetryPolicy": "Retry",
             "WaitFor": "Wait for", "SleepUntil": "Step", "Concurrency": "Workflow",
             "StartRate": "Workflow", "Debounce": "Workflow"}  # fmt: skip
    models, left = set(), [DefinitionModel]
    while left:
        models.update(found := left.pop().__subclasses__())
        left += found
    assert Workflow in models
    ours = {each for each in models if each.__module__.startswith("automate_kernel.")}
    for model in ours - {CodeWorkflow}:
        title = parts.get(model.__name__, model.__name__)
        if model in TRIGGERS.values() or title.startswith("_"):
            continue
        part = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
        for name, field in model.model_fields.items():
            assert f"`{field.validation_alias or name}`" in part, f"{title}.{name}"
    for kind, model in TRIGGERS.items():
        row = re.search(rf"^\| `{kind}` \|.*$", page, re.MULTILINE)
        for name, field in model.model_fields.items():
            assert name == "type" or f"`{field.validation_alias or name}`" in row[0], name


def test_every_signal_hook_and_limit_is_in_the_reference() -> None:
    """Signals with their arguments, hooks with theirs, and the templates' limits."""
    from dataclasses import fields

    from automate_kernel.plugins import HookSpecs
    from automate_kernel.signals import ALL_SIGNALS
    from automate_kernel.templates import Limits

    page = _page("signals.md")
    assert not [signal.name for signal in ALL_SIGNALS if f"| `{signal.name}` |" not in page]
    for name, function in vars(HookSpecs).items():
        if name.startswith("automate_"):
            arguments = ", ".join(list(inspect.signature(function).parameters)[1:])
            assert f"`{name}({arguments})`" in page
    limits = _page("templates.md")
    for limit in fields(Limits):
        default = f"{limit.default:,}"
        assert f"| `{limit.name}` | {default} |" in limits, limit.name


def test_every_command_and_option_is_in_the_reference() -> None:
    """What `automate --help` knows, at any depth, is on the page of the command line."""
    page = _page("cli.md")
    parts = re.split(r"^## `", page, flags=re.MULTILINE)[1:]
    sections = {part.partition("`")[0]: part for part in parts}
    found = generate.commands()
    assert len(found) > 20
    for path, command in found[1:]:
        assert path in sections, path
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                for name in parameter.opts:
                    assert name == "--help" or f"`{name}`" in sections[path], f"{path} {name}"
    assert set(sections) <= {path for path, _ in found}


def _commands_in_prose() -> list[tuple[str, list[str]]]:
    """Each `automate …` and `manage.py automate…` that stands in words, a table or a drawing."""
    found = []
    for name in NAMES:
        if name == "CHANGELOG.md" or name.endswith(("reference/cli.md", "reference/manage.md")):
            continue
        text = (ROOT / name).read_text()
        spans = re.findall(r"`((?:manage\.py automate[_ ]|automate )[^`\n…]*)`", text)
        spans += [
            each.replace(",", " ").replace('"', "")
            for each in re.findall(r"command: \[(automate,[^\]]*)\]", text)
        ]
        found += [(name, each.split()) for each in spans]
    return found


def test_commands_in_prose_exist() -> None:
    """A command that a page names in passing is there, with each option that stands with it."""
    sections: dict[str, str] = {}
    for page in ("cli.md", "manage.md"):
        for part in re.split(r"^## `", _page(page), flags=re.MULTILINE)[1:]:
            sections[part.partition("`")[0]] = part
    sections["automate"] = _page("cli.md")
    known = {
        "--help", "--version", "--config", "--database", "--debug", "--json",
        "--install-completion",
    }  # fmt: skip
    told, wrong = _commands_in_prose(), []
    plugins = [each.read_text() for each in ROOT.glob("plugins/*/pyproject.toml")]
    theirs = {
        name
        for group in re.findall(r'"automate.commands"\]\n((?:\w.*\n)+)', "\n".join(plugins))
        for name in re.findall(r"^([\w-]+) =", group, re.MULTILINE)
    }
    for page, words in told:
        if words[:2] == ["manage.py", "automate"]:
            words = words[1:]  # the same commands on the project's kernel
        if words[:1] == ["automate"] and words[1] in theirs:
            continue  # told by the plugin's own pages
        depth = 2 if words[0] == "manage.py" else 1
        while " ".join(words[: depth + 1]) in sections and depth < len(words):
            depth += 1
        path = " ".join(words[:depth])
        section = sections.get(path, "")
        has_commands = any(each.startswith(f"{path} ") for each in sections)
        strange = has_commands and depth < len(words) and not words[depth].startswith("-")
        options = {each.partition("=")[0] for each in words[depth:] if each.startswith("-")}
        unknown = [each for each in options - known if f"`{each}`" not in section]
        if not section or strange or unknown:
            wrong.append(f"{page}: {' '.join(words)}")
    assert len(told) > 30
    assert wrong == []


def test_every_command_of_manage_py_is_in_the_reference() -> None:
    """Each command that the app adds, with those below it and every option."""
    import argparse

    load_command = _django("django.core.management").load_command_class
    base = _django("django.core.management.base").BaseCommand
    page = _page("manage.md")
    parts = re.split(r"^## `", page, flags=re.MULTILINE)[1:]
    sections = {part.partition("`")[0]: part for part in parts}
    djangos = base().create_parser("manage.py", "any")
    common = {name for action in djangos._actions for name in action.option_strings}

    def check(parser: argparse.ArgumentParser, path: str) -> int:
        assert path in sections, path
        found = 1
        for action in parser._actions:
            for name in action.option_strings:
                assert name in common or f"`{name}`" in sections[path], f"{path} {name}"
            if isinstance(action, argparse._SubParsersAction):
                found += sum(check(p, f"{path} {name}") for name, p in action.choices.items())
        return found

    folder = ROOT / "src" / "automate_django" / "management" / "commands"
    names = sorted(file.stem for file in folder.glob("automate*.py"))
    found = 0
    for name in names:
        command = load_command("automate_django", name)
        found += check(command.create_parser("manage.py", name), f"manage.py {name}")
    assert len(names) >= 4
    assert found == len(sections)
    import typer
    from automate_cli.app import hosted

    for name in typer.main.get_command(hosted).commands:
        assert f"(cli.md#automate-{name})" in sections["manage.py automate"], name


def test_every_table_is_in_the_reference() -> None:
    """The kernel's tables and Django's, with every column and what it means."""
    from automate_kernel.storage.tables import TABLES

    models = list(_django("django.apps").apps.get_app_config("automate_django").get_models())
    wanted = {table.name: [c.name for c in table.columns] for table in TABLES.values()}
    wanted |= {
        m._meta.db_table: [f.column for f in m._meta.concrete_fields]
        for m in models
        if not m._meta.proxy
    }
    assert len(wanted) >= 20
    parts = re.split(r"^##+ `", _page("tables.md"), flags=re.MULTILINE)[1:]
    sections = {part.partition("`")[0]: part for part in parts}
    assert set(sections) == set(wanted)
    for table, columns in wanted.items():
        for column in columns:
            meaning = re.search(
                rf"^\| `{column}` \|.*\| ([^|]*) \|$", sections[table], re.MULTILINE
            )
            assert meaning and meaning[1].strip(), f"{table}.{column} has no meaning"


def test_what_a_kernel_has_is_in_the_reference() -> None:
    """Every public attribute of a kernel has an entry, methods and parts alike."""
    from automate_kernel import Kernel

    page = (ROOT / "docs" / "reference" / "api" / "kernel.md").read_text()
    told = set(re.findall(r"^#### `Kernel\.(\w+)`", page, re.MULTILINE))
    kernel = Kernel(discover=False)
    assert {name for name in dir(kernel) if not name.startswith("_")} - told == set()


def test_named_tests_exist() -> None:
    """A page that names a test as proof names one that is there."""
    sources = [file for part in ("tests", "src") for file in ROOT.joinpath(part).rglob("*.py")]
    sources += ROOT.glob("plugins/*/tests/**/*.py")
    defined = {name for file in sources for name in re.findall(r"def (test_\w+)", file.read_text())}
    defined |= {file.name for file in sources} | {file.stem for file in sources}
    for page in ROOT.joinpath("docs", "explanation").glob("*.md"):
        named = set(re.findall(r"`(test_\w+(?:\.py)?)`", page.read_text()))
        assert not named - defined, page.name


def test_a_linked_test_is_in_its_file() -> None:
    """A link under the name of a test leads to the file that defines it."""
    for page in ROOT.joinpath("docs", "explanation").glob("*.md"):
        for name, target in re.findall(r"\[`(test_\w+)`\]\(([^)#]+)\)", page.read_text()):
            linked = (page.parent / target).resolve()
            assert re.search(rf"def {name}\b", linked.read_text()), f"{page.name}: {name}"


def test_the_comparison_stands_on_tests_and_sources() -> None:
    """Each "yes" of ours names a test, and what it says of others is on a page that it lists."""
    page = (ROOT / "docs" / "explanation" / "compared.md").read_text()
    rows = [
        re.split(r" ?\| ?", line)[1:-1] for line in re.findall(r"^\| \d+ .*", page, re.MULTILINE)
    ]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert not [row[1] for row in rows if row[2].startswith("[yes]") and "`test_" not in row[3]]
    _, *parts = re.split(r"^\*\*(.+):\*\*", page.partition("## Sources")[2], flags=re.MULTILINE)
    peers = dict(zip(parts[::2], parts[1::2], strict=True))
    assert list(peers) == ["DBOS", "Temporal", "Absurd", "n8n"]
    for column, (peer, sources) in enumerate(peers.items(), start=4):
        listed = re.findall(r"^- \[.+\]\(https://\S+\): ([\d, ]+)$", sources, re.MULTILINE)
        cited = {number.strip() for numbers in listed for number in numbers.split(",")}
        said = {row[0] for row in rows if row[column] not in ("no", "?", "—")}
        assert not said - cited, peer


def test_the_specifications_names_are_where_the_map_says() -> None:
    """Each name of the map can be imported from each place that stands beside it."""
    table = _page("specification.md").partition("| entry-point")[0]
    checked = 0
    for row in re.findall(r"^\| `.*\|$", table, re.MULTILINE):
        left, right = (re.findall(r"`([\w.]+)`", cell) for cell in row.strip("| ").split(" | "))
        names = {name.rpartition(".")[2] for name in left} - {"signals"}
        for place in right:
            load = _django if place.startswith("automate_django") else importlib.import_module
            head, _, tail = place.rpartition(".")
            is_name = tail[0].isupper() or tail in names
            module = load(head if is_name else place)
            wanted = {tail} if is_name else names
            checked += len(wanted)
            # Two modules may share the names of a row between them.
            assert wanted & set(dir(module)) or not wanted, f"{place}: {wanted}"
    assert checked > 15


def _django(module: str):
    """A module of the Django adapter, in a process that is one of a project."""
    sys.path.insert(0, str(ROOT / "tests" / "django_project"))
    from shopsite.configured import configure

    configure()
    return importlib.import_module(module)


def _public_modules() -> list[str]:
    folders = ("automate_kernel", "automate_sqlalchemy", "automate_django")
    packages = {
        ".".join(file.parent.relative_to(ROOT / "src").parts)
        for folder in folders
        for file in ROOT.joinpath("src", folder).rglob("__init__.py")
        # Migrations and commands are no API.
        if not {"migrations", "management", "cli"} & set(file.parts)
    }
    return sorted(packages)


@pytest.mark.parametrize("module", _public_modules())
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """What a package lists in `__all__` has a heading in docs/reference."""
    load = _django if module.startswith("automate_django") else importlib.import_module
    names = set(getattr(load(module), "__all__", ()))
    told: set[str] = set()
    for page in ROOT.joinpath("docs", "reference").rglob("*.md"):
        told |= set(re.findall(r"^#+ .*?`([\w.]+)`", page.read_text(), re.MULTILINE))
    assert not names - told


def test_a_broken_page_is_noticed(tmp_path: Path) -> None:
    """The check itself works: a wrong output and an unknown language are failures."""
    for text in ("```python\nprint(1)\n```\n\n```output\n2\n```\n", "```cobol\nSTOP RUN.\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(runner.DocumentationError):
            runner.Page(page).run()


def test_a_hidden_block_can_only_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page needs is on the page: no name, file or variable comes from where nobody looks."""
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    for hidden in (
        "here = 1",
        "open('here.txt', 'w').close()",
        "import os; os.environ['here'] = '1'",
    ):
        page.write_text(f"<!-- hidden\n{hidden}\n-->\n\n```python\nprint(here)\n```\n")
        with pytest.raises((runner.DocumentationError, NameError)):
            runner.Page(page).run()
        monkeypatch.delenv("here", raising=False)
        (tmp_path / "here.txt").unlink(missing_ok=True)
    page.write_text("```python\nhere = 1\n```\n\n<!-- hidden\nassert here == 1\n-->\n")
    runner.Page(page).run()


def test_a_reader_sees_no_hidden_block(tmp_path: Path) -> None:
    """In this mode hidden blocks are left out, and each block that fails is counted."""
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- hidden\nraise SystemExit\n-->\n\n```python\nprint(1)\n```\n\n```output\n1\n```\n\n"
        "```python\nprint(2)\n```\n\n```output\n3\n```\n"
    )
    assert runner.Page(page).read() == (1, 2)


def _prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text(), flags=re.S | re.M)


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }

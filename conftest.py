"""The options of all tests, the plugins' too: what takes long is skipped unless it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import example_counts
import hypothesis
import pytest

from automate_kernel.secrets import redaction

# Tests start thousands of processes: each would compile all that it imports, and each worker of
# pytest all tests, where the environment says that nothing compiled is kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A busy machine is no failure: no example has to be ready within a time. The same examples come
# each time, so that a change is refused for what it does. Others: `--hypothesis-profile search`.
_PATIENT = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("project", _PATIENT, derandomize=True, database=None)
hypothesis.settings.register_profile("search", _PATIENT)
hypothesis.settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full``, for what takes long, and options for databases and the group of plugins."""
    parser.addoption(
        "--full",
        action="store_true",
        help="run tests/fault at full length, models with all examples, and what is marked long",
    )
    parser.addoption(
        "--every-storage",
        action="store_true",
        help="run what is marked any_storage on each storage, as CI does",
    )
    parser.addoption(
        "--with-plugins",
        action="store_true",
        help="fail, and don't skip, what is marked plugins and lacks a package",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Run models with few examples, unless ``--full`` asks for all."""
    example_counts.full_length = config.getoption("--full")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run single files in this process, to look on; folders on each core and one more."""
    if any(".py" in argument for argument in config.invocation_params.args):
        return 0
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    # Half of their time tests wait for servers and processes.
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked ``long``, and say so, unless it is asked for; then it has the time."""
    plugins = config.rootpath / "plugins"
    for item in items:
        # That plugin belongs to what the kernel's own tests need.
        if plugins in item.path.parents and plugins / "automate-http" not in item.path.parents:
            item.add_marker(pytest.mark.plugins)
    long = [item for item in items if item.get_closest_marker("long")]
    if not config.getoption("--full"):
        for item in long:
            item.add_marker(pytest.mark.skip(reason="takes long: --full runs it"))
        return
    for item in long:
        if not item.get_closest_marker("timeout"):
            # A busy machine needs many times what an idle one does.
            item.add_marker(pytest.mark.timeout(1500))
    # Their files come first: each is one worker's, and the last would end long after the others.
    files = {item.path for item in long}
    items.sort(key=lambda item: item.path not in files)


@pytest.fixture(autouse=True)
def _nothing_of_other_tests() -> Iterator[None]:
    """
    Forget what a process knows while somebody needs it, and longer: until memory is tidied up.

    Logs hide the secrets of every kernel that is alive, and the wait that a service asked for is
    that of its address, which the service of a later test may be given.
    """
    before = set(redaction._alive)  # noqa: SLF001
    yield
    for each in set(redaction._alive) - before:  # noqa: SLF001
        redaction._alive.pop(each, None)  # noqa: SLF001
    limits = sys.modules.get("automate_http.rate_limit")
    if limits is not None:
        limits._shared.clear()  # noqa: SLF001

"""Scenes on every database that the faults are tried on, and the processes for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.register_assert_rewrite("fault_scene", "fault_invariants")
sys.path.append(str(Path(__file__).parent))

if TYPE_CHECKING:
    from fault_scene import Forks, Scene
    from fault_server import Server


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the long sizes of the tests are wanted."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server of our own, which may be restarted, and which forgets no commit."""
    try:
        from fault_server import Server
    except ImportError as error:
        reason = f"PostgreSQL: {error.name} is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """What forks the processes."""
    from fault_scene import Forks

    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def open_scene_at(forks: Forks, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """A function that opens a scene on the database of a URL."""
    from fault_scene import Scene

    scenes: list[Scene] = []

    def open_scene_at(url: str, **options: Any) -> Scene:
        scenes.append(Scene(url, tmp_path, forks, **options))
        return scenes[-1]

    yield open_scene_at
    for scene in scenes:
        scene.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def open_scene(
    request: pytest.FixtureRequest, tmp_path: Path, open_scene_at: Callable[..., Scene]
) -> Callable[..., Scene]:
    """A function that opens a scene on an empty database."""

    def open_scene(lease_seconds: float = 1.0) -> Scene:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path / 'automate.sqlite3'}"
        else:
            url = request.getfixturevalue("postgresql_url")
        return open_scene_at(url, lease_seconds=lease_seconds)

    return open_scene


@pytest.fixture
def open_postgresql(
    postgresql_url: str, open_scene_at: Callable[..., Scene]
) -> Callable[..., Scene]:
    """A function that opens a scene on an empty PostgreSQL database."""

    def open_postgresql(lease_seconds: float = 1.0) -> Scene:
        return open_scene_at(postgresql_url, lease_seconds=lease_seconds)

    return open_postgresql

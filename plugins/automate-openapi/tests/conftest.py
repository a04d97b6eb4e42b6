"""A service to call, and Prism from npm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("automate_testing")
HERE = Path(__file__).parent
sys.path[:0] = [
    str(HERE / "support"),
    str(HERE.parents[1] / "automate-http" / "tests" / "support"),
]

from npm_parts import github_document, prism_for  # noqa: E402
from openapi_support import PETSTORE  # noqa: E402
from recording_service import service  # noqa: E402, F401


@pytest.fixture(scope="session")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of Prism, which answers the pet store's document and refuses what doesn't fit it."""
    with prism_for(PETSTORE, tmp_path_factory.mktemp("prism")) as url:
        yield url


@pytest.fixture(scope="session")
def github() -> Path:
    """GitHub's own document, from npm."""
    return github_document()

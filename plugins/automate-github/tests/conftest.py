"""A service to call, and Prism with GitHub's own document."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("automate_testing")
HERE = Path(__file__).parent
sys.path[:0] = [
    str(HERE / "support"),
    str(HERE.parents[1] / "automate-http" / "tests" / "support"),
    str(HERE.parents[1] / "automate-openapi" / "tests" / "support"),
]

from github_support import cut_out  # noqa: E402
from npm_parts import github_document, prism_for  # noqa: E402
from own_github import own_github  # noqa: E402, F401
from recording_service import service  # noqa: E402, F401


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of GitHub's own document that the actions use: Prism reads all of it in 14 s."""
    whole = json.loads(github_document().read_text("utf-8"))
    path = tmp_path_factory.mktemp("github") / "github.json"
    path.write_text(json.dumps(cut_out(whole)))
    return path


@pytest.fixture(scope="session")
def prism(document: Path) -> Iterator[str]:
    """The URL of Prism, which answers as GitHub's document says and refuses what doesn't fit it."""
    with prism_for(document, document.parent) as url:
        yield url

"""GitHub's own document: large, and used by many."""

from __future__ import annotations

from pathlib import Path

import pytest
from logged import logged
from automate_kernel import AutomateError
from openapi_support import call, connector, specs
from recording_service import Service


@pytest.fixture
def auth() -> dict[str, dict[str, str]]:
    """Its document has no security schemes."""
    return {"token": {"type": "bearer", "secret": "T"}}


def test_every_operation_is_an_action(
    github: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """More than a thousand, and none is checked less than the document says."""
    found = specs(connector(github, tmp_path))
    assert len(list(found.values())) > 1_000
    assert all(spec.input_schema for spec in found.values())
    assert logged(caplog, "automate.plugins") == []


def test_one_action_does_not_make_the_others(github: Path, tmp_path: Path) -> None:
    """Only those that are asked for; the benchmark says what one costs."""
    found = specs(connector(github, tmp_path))
    found["repos.get"].validate({"owner": "a", "repo": "b"})
    found["issues.create"].validate({"owner": "a", "repo": "b", "title": "c"})
    assert len(found._made) == 2


def test_an_action_is_called(
    github: Path, tmp_path: Path, service: Service, auth: dict[str, dict[str, str]]
) -> None:
    made = connector(
        github, tmp_path, auth=auth, pages={"issues.list*": {"by": "link"}}, **service.config
    )
    service.answer([{"n": 1}], Link=f'<{service.url}/repos/a/b/issues?page=2>; rel="next"')
    service.answer([{"n": 2}])
    values = {"owner": "a", "repo": "b", "labels": "x,y", "max_items": 5}
    assert call(made, "issues.list-for-repo", values) == [{"n": 1}, {"n": 2}]
    assert service.sent[0].target == "/repos/a/b/issues?labels=x%2Cy"
    with pytest.raises(AutomateError, match="'title' is required"):
        call(made, "issues.create", {"owner": "a", "repo": "b"})

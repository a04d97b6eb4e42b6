"""The demonstration says what it waits for, and shows its receiver's log when it fails."""

from __future__ import annotations

import pytest

from automate_kernel import AutomateError
from automate_kernel.cli.demo import stage as module
from automate_kernel.cli.demo.stage import Stage


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a demonstration that is short of time says while it waits."""
    monkeypatch.setattr(module, "_DEADLINE", 0.2)
    monkeypatch.setattr(module, "_NEWS", 0.05)
    return []


def test_a_long_wait_is_told_and_its_end_shows_the_log(hurried: list[str]) -> None:
    """Who waits hears for what; a failure brings the end of the log, and where the rest is."""
    with Stage(note=hurried.append) as stage:
        log = stage.folder / "serve.log"
        log.write_text("".join(f"line {number}\n" for number in range(100)))
        with pytest.raises(AutomateError) as caught:
            stage.until("a worker", lambda: None)
        assert "line 99" in caught.value.message
        assert "line 80" not in caught.value.message
        assert str(stage.folder) in str(caught.value.hint)
        assert hurried and "still waiting for a worker" in hurried[0]
        log.write_text("")
        with pytest.raises(AutomateError, match="its log is empty"):
            stage.until("a worker", lambda: None)
        stage._keep = False


def test_a_busy_machine_has_minutes() -> None:
    """What takes a second on a quiet machine may take far more on one with nine other jobs."""
    assert module._DEADLINE >= 180

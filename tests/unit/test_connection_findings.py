"""The connection tests of all plugins with config, as findings of the doctor."""

from __future__ import annotations

from typing import Any

from automate_kernel import AutomateError, Connector, Kernel
from automate_kernel.monitoring.diagnosis import connection_findings


class Answers(Connector):
    key = "answers"
    display_name = "Answers"

    async def check(self) -> str:
        return "3 tools; one is left out"


class Fails(Connector):
    key = "fails"
    display_name = "Fails"

    def check(self) -> Any:
        raise AutomateError("UNAUTHENTICATED", "the token is wrong")


class Silent(Connector):
    key = "silent"
    display_name = "Silent"


def test_only_plugins_with_config_are_asked() -> None:
    """One that nobody has set up would fail for that."""
    config: dict[str, Any] = {"answers": {}, "silent": {}}
    with Kernel(plugins=[Answers, Fails, Silent], config=config, discover=False) as kernel:
        (finding,) = connection_findings(kernel)
        assert (finding.state, finding.text) == (
            "ok",
            "connector answers: 3 tools; one is left out",
        )


def test_a_failure_has_its_code_and_a_remedy() -> None:
    with Kernel(plugins=[Fails], config={"fails": {}}, discover=False) as kernel:
        (finding,) = connection_findings(kernel)
    assert finding.state == "fail" and "UNAUTHENTICATED: the token is wrong" in finding.text
    assert finding.remedy == "correct [config.fails], or its secrets"


def test_without_any_it_says_so() -> None:
    with Kernel(discover=False) as kernel:
        (finding,) = connection_findings(kernel)
    assert finding.state == "ok" and "no plugin" in finding.text

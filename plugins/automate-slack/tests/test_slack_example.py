"""The example workflow that the package ships runs against the double of Slack."""

from __future__ import annotations

import automate_slack
from automate_kernel import Kernel
from automate_testing.authoring.example import ExampleFile
from automate_slack.testing import FakeSlack


def test_the_example_runs(slack: FakeSlack, kernel: Kernel) -> None:
    """It asks, and announces after a click."""
    example = ExampleFile.of(automate_slack.__name__)
    assert example is not None
    kernel.add_workflow(example.path)
    kernel.start("announce", {"what": "v2"})
    kernel.run_until_idle()
    (question,) = slack.messages("C0LAUNCH")
    click = slack.click(question, "automate_approve", user="U0ANN")
    kernel.receive_webhook("slack", "interaction", click.headers, click.body)
    kernel.run_until_idle()
    assert [each["text"] for each in slack.messages("C0NEWS")] == ["v2 is out"]

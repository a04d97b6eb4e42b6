"""A double of Slack, and a kernel that talks to it."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from automate_kernel import Kernel
from automate_slack import APPROVALS
from automate_slack.testing import FakeSlack

# A busy machine is no failure: no example has to be ready within a time. With `search` others come.
if hypothesis.settings.get_current_profile_name() not in {"project", "search"}:
    hypothesis.settings.register_profile("plugin", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("plugin")


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with FakeSlack() as slack:
        slack.add_channel("C0LAUNCH", "launch")
        slack.add_channel("C0NEWS", "news")
        slack.add_user("U0ANN", "Ann@example.com")
        slack.add_user("U0KIM", "kim@example.com")
        yield slack


@pytest.fixture
def kernel(slack: FakeSlack) -> Iterator[Kernel]:
    with Kernel(config={"slack": slack.config}, secrets=slack.secrets) as kernel:
        kernel.add_workflow(APPROVALS)
        yield kernel

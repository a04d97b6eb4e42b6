"""
Slack for automate-kernel: messages, files, signed events, and approvals by buttons.

`SlackConnector` is the connector. `APPROVALS` is the file of the workflow that answers approvals
with the clicks on their buttons: ``kernel.add_workflow(APPROVALS)``.
"""

from __future__ import annotations

from pathlib import Path

from automate_slack.config import SlackConfig
from automate_slack.connector import SlackConnector

__all__ = ["APPROVALS", "SlackConfig", "SlackConnector"]

APPROVALS: Path = Path(__file__).with_name("approvals.yaml")
"""The workflow ``slack-approvals``, which takes each click to the approval that it is for."""

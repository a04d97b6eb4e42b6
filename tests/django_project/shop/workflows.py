"""A workflow that is written in Python."""

from __future__ import annotations

from automate_kernel.workflows.definition.model import Workflow

restock = workflow = Workflow.model_validate(
    {
        "name": "restock",
        "trigger": {"type": "manual"},
        "steps": [
            {"id": "say", "action": "chat.post_message", "input": {"channel": "C", "text": "T"}}
        ],
    }
)

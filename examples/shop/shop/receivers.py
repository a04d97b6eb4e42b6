"""The shop listens to the automation, with Django's signals."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import receiver

from automate_django.signals import workflow_completed, workflow_failed
from automate_kernel import AutomateError, Execution

logger = logging.getLogger("shop")


@receiver(workflow_completed)
def tell_completed(sender: Any, execution: Execution, **kwargs: Any) -> None:
    """A workflow came to its end."""
    logger.info("%s workflow %s: completed", execution.tenant_id, execution.name)


@receiver(workflow_failed)
def tell_failed(sender: Any, execution: Execution, error: AutomateError, **kwargs: Any) -> None:
    """A workflow failed, and its `on_failure` steps have run."""
    logger.info("%s workflow %s: failed, %s", execution.tenant_id, execution.name, error)

"""The signals of workflows, steps and events, for Django's ``@receiver``."""

from automate_django.signals import event_received as event_received
from automate_django.signals import step_completed as step_completed
from automate_django.signals import step_failed as step_failed
from automate_django.signals import step_started as step_started
from automate_django.signals import workflow_completed as workflow_completed
from automate_django.signals import workflow_failed as workflow_failed
from automate_django.signals import workflow_started as workflow_started

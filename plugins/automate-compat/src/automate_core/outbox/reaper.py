"""The reaper of Django's outbox."""

from automate_django.outbox import OutboxReaper as OutboxReaper

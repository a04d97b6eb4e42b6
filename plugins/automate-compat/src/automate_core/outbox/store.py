"""The outbox stores of Django."""

from automate_django.outbox import OptimisticClaimOutboxStore as OptimisticClaimOutboxStore
from automate_django.outbox import SkipLockedClaimOutboxStore as SkipLockedClaimOutboxStore

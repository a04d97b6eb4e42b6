"""automate-kernel in a Django project: its database, settings, signals and ``manage.py``."""

from automate_django.kernel import aemit, emit, get_kernel

__all__ = ["aemit", "emit", "get_kernel"]

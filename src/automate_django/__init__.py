"""automate-kernel in a Django project: its database, settings, signals and ``manage.py``."""

try:
    import django as _django  # noqa: F401
except ModuleNotFoundError:
    raise ImportError(
        "automate_django needs Django: pip install 'automate-kernel[django]'", name="django"
    ) from None

from automate_django.kernel import action, aemit, emit, get_kernel, workflow

__all__ = ["action", "aemit", "emit", "get_kernel", "workflow"]

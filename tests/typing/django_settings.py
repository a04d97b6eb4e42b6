"""The settings that the type checker reads the models with: ours, and those of the example."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "shop"))

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.admin",
    "automate_django",
    "shop",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SECRET_KEY = "for the type checker"
USE_TZ = True
TASKS = {"default": {"BACKEND": "automate_django.tasks.OutboxBackend", "QUEUES": ["mail"]}}
SHOP_REMIND_AFTER_SECONDS = 120

"""The settings that the type checker reads the models with."""

INSTALLED_APPS = ["automate_django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SECRET_KEY = "for the type checker"
USE_TZ = True

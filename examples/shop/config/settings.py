"""
The settings of the example.

They are for a machine of one's own: DEBUG, and secrets that everybody can read here. What a project
of yours would have too is below "automate-kernel".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import django

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = True
SECRET_KEY = "for the example only"  # noqa: S105
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "automate_django",
    "shop",
]
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")  # from 6.0 on, tasks are Django's own

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "config.urls"
STATIC_URL = "static/"

# The web server and the worker both write: each waits until the other is done.
SQLITE_OPTIONS: dict[str, Any] = {"timeout": 20}
if django.VERSION >= (5, 1):
    # Take the lock when a transaction begins. One that has read first could not wait for it.
    SQLITE_OPTIONS["transaction_mode"] = "IMMEDIATE"
    # In its default mode a reader keeps a commit out.
    SQLITE_OPTIONS["init_command"] = "PRAGMA journal_mode=WAL"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "shop.sqlite3",
        "OPTIONS": SQLITE_OPTIONS,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

# A file for each mail. In a project of yours, a mail server.
if django.VERSION >= (6, 1):
    MAILERS = {
        "default": {
            "BACKEND": "django.core.mail.backends.filebased.EmailBackend",
            "OPTIONS": {"file_path": BASE_DIR / "mail"},
        }
    }
else:
    EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    EMAIL_FILE_PATH = BASE_DIR / "mail"
DEFAULT_FROM_EMAIL = "shop@example.com"

# The signal receivers in shop/receivers.py tell what the worker does.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"shop": {"handlers": ["console"], "level": "INFO"}},
}

REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    # Errors of all views are told in one form, the schema's own among them.
    "EXCEPTION_HANDLER": "automate_django.api.problem_exception_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "The shop",
    "VERSION": "1",
    # What goes in and what comes out are described apart: only then is it told of what goes in
    # that it can't be empty.
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_INCLUDE_SCHEMA": False,
}

# -- automate-kernel -------------------------------------------------------------------------------

AUTOMATE_WORKFLOWS = [BASE_DIR / "workflows"]
AUTOMATE_HOOKS = ["shop.automation"]
AUTOMATE_CONNECTORS = ["shop.payments.Payments"]
AUTOMATE_CONFIG = {"payments": {"api_key": "$secret:PAYMENTS_API_KEY"}}
AUTOMATE_SECRETS = [
    # AUTOMATE_SECRET_PAYMENTS_API_KEY=… in the environment comes first.
    "automate_kernel.secrets.EnvSecretsBackend",
    {
        "BACKEND": "automate_kernel.secrets.MemorySecretsBackend",
        "OPTIONS": {
            "secrets": {
                "PAYMENTS_API_KEY": "key-for-the-example-only",
                "PAYMENTS_WEBHOOK_SECRET": "secret-for-the-example-only",
            }
        },
    },
]
# A worker that was killed is noticed after this time, and another one goes on with its work. It
# must be longer than any pause of the machine; 300 is the default.
AUTOMATE_OUTBOX = {"LEASE_SECONDS": 30}
# One function says for the admin and for the API whose rows a user sees.
AUTOMATE_ADMIN = {
    "TENANT": "shop.tenants.store_of",
    "TENANT_PATHS": {"auth.User": "membership__store_id"},
}
AUTOMATE_API = {"TENANT": "shop.tenants.store_of", "PAGE_SIZE": 20}

TASKS = {
    "default": {"BACKEND": "automate_django.tasks.OutboxBackend", "QUEUES": ["default", "mail"]}
}

# How long an order may stay unpaid before workflows/payment-reminder.yaml reminds of it.
SHOP_REMIND_AFTER_SECONDS = 120

"""
A small shop with an outbox.

The environment says where its databases are: ``SHOP_SQLITE``, a file, and ``SHOP_POSTGRESQL``, a
URL. With the latter it is there that the outbox lives; with ``SHOP_POOL``, in a pool as Django
makes it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import django

BASE_DIR = Path(__file__).resolve().parent.parent


def postgresql(url: str) -> dict[str, Any]:
    """The entry of ``DATABASES`` for a URL, which may name a Unix socket as ``?host=``."""
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.get("host", parts.hostname or ""),
        "PORT": str(query.get("port", parts.port or "")),
        "OPTIONS": {"pool": True} if os.environ.get("SHOP_POOL") else {},
    }


def mariadb(url: str) -> dict[str, Any]:
    """The entry of ``DATABASES`` for a URL."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        # The character set is Django's own default from 5.2 on. With TLS PyMySQL reads all
        # certificates of the machine for each connection.
        "OPTIONS": {"charset": "utf8mb4", "ssl_disabled": True},
    }


SECRET_KEY = "for tests"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "automate_django",
    "shop",
    "backoffice",
    "service",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "shopsite.urls"
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
STATIC_URL = "/static/"
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_SQLITE", ":memory:"),
        "OPTIONS": {"timeout": 20},
    }
}
if url := os.environ.get("SHOP_POSTGRESQL"):
    DATABASES["default"] = postgresql(url)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTOMATE_HOOKS = ["shop.automation"]
AUTOMATE_CONNECTORS = ["shop.automation.ChatConnector"]
AUTOMATE_CONFIG = {"chat": {"token": "$secret:CHAT_TOKEN"}}
AUTOMATE_SECRETS = [
    {
        "BACKEND": "automate_kernel.secrets.MemorySecretsBackend",
        "OPTIONS": {"secrets": {"CHAT_TOKEN": "tok-51d0"}},
    }
]
AUTOMATE_WORKFLOWS = [BASE_DIR / "workflows"]
AUTOMATE_OUTBOX = {"LEASE_SECONDS": float(os.environ.get("SHOP_LEASE_SECONDS", "300"))}
AUTOMATE_PLUGINS = {"DISCOVER": False}

TASKS = {
    "default": {
        "BACKEND": "automate_django.tasks.OutboxBackend",
        "QUEUES": ["default", "queue_1"],
    },
    "any": {
        "BACKEND": "automate_django.tasks.OutboxBackend",
        "QUEUES": [],
        "OPTIONS": {"RETRY_ERRORS": True, "MAX_ATTEMPTS": 3, "BASE_SECONDS": 0},
    },
}
if importlib.util.find_spec("django_filters"):
    INSTALLED_APPS.append("django_filters")
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")

"""A Django project with the pages in its admin, in the folder where this is run; prints its port."""

from __future__ import annotations

import json
from typing import Any

import django
from django.conf import settings
from django.urls import path

urlpatterns: list[Any] = []
APPS = ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")


def main() -> None:
    """Serve the project until the process is ended."""
    settings.configure(
        SECRET_KEY="for tests", ALLOWED_HOSTS=["127.0.0.1"], USE_TZ=True, STATIC_URL="/static/",
        ROOT_URLCONF=__name__, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[*(f"django.contrib.{each}" for each in APPS), "automate_django"],
        DATABASES={"default": {
            "ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3",
            "OPTIONS": {"timeout": 60},
        }},
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
            "OPTIONS": {"context_processors": [
                f"django.{each}" for each in (
                    "template.context_processors.request",
                    "contrib.auth.context_processors.auth",
                    "contrib.messages.context_processors.messages",
                )
            ]},
        }],
        AUTOMATE_OPERATIONS={"PAGES": ["charge"]},
    )  # fmt: skip
    django.setup()
    from automate_django import get_kernel
    from django.contrib import admin
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from paged_shop import Shop
    from waitress.server import create_server

    urlpatterns.append(path("admin/", admin.site.urls))
    call_command("migrate", verbosity=0)
    user = User.objects.create_superuser("ada")
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    Shop(kernel=get_kernel())
    app = StaticFilesHandler(get_wsgi_application())
    server: Any = create_server(app, host="127.0.0.1", port=0, threads=4)
    print(json.dumps([server.effective_port, session.session_key]), flush=True)
    server.run()


if __name__ == "__main__":
    main()

"""
The REST API for a project's URLs.

::

    path("api/automate/", include("automate_django.api.urls"))
"""

from automate_django.api.v1.urls import app_name, urlpatterns

__all__ = ["app_name", "urlpatterns"]

"""Who may call a view, and what it reads from the settings."""

from __future__ import annotations

from typing import Any

from rest_framework.parsers import JSONParser
from rest_framework.permissions import AllowAny, IsAdminUser

from automate_django import conf
from automate_django.api.bases.placed import Placed
from automate_django.api.options import DEFAULTS, SETTING, Configured
from automate_django.api.parsers import BoundedJSONParser
from automate_django.api.problems import problem_exception_handler

__all__ = [
    "Access",
    "Configurable",
    "ConfigurableMixin",
    "Defaults",
    "PublicAPIMixin",
    "StaffOnlyMixin",
]


class Access(Placed):
    """The behaviour of `StaffOnlyMixin` and `PublicAPIMixin`."""

    staff_only = False
    public = False

    def get_permissions(self) -> Any:
        """The permissions; a public view has none."""
        if self.public and not self.staff_only:
            return [AllowAny()]
        return super().get_permissions()

    def check_permissions(self, request: Any) -> None:
        """Ask for staff first, so that a view's own `get_permissions` can't leave it out."""
        if self.staff_only and not IsAdminUser().has_permission(request, self):
            self.permission_denied(request)
        super().check_permissions(request)


class Defaults(Access):
    """What our base classes have and mixins don't, since a project's own views have theirs."""

    authentication_classes: Any = Configured("AUTHENTICATION", load=True)
    permission_classes: Any = Configured("PERMISSIONS", load=True)
    throttle_classes: Any = Configured("THROTTLES", load=True)

    def get_exception_handler(self) -> Any:
        """What makes the response of an error."""
        return problem_exception_handler

    def get_parsers(self) -> Any:
        """The project's parsers; where one is REST framework's own of JSON, ours with bounds."""
        parsers = super().get_parsers()
        return [BoundedJSONParser() if type(each) is JSONParser else each for each in parsers]


class StaffOnlyMixin(Access):
    """For staff alone, whatever else is asked for."""

    staff_only = True


class PublicAPIMixin(Access):
    """For everybody. Who sends a token is known by it, and turned away if it is wrong."""

    public = True


class Configurable(Placed):
    """The behaviour of `ConfigurableMixin`."""

    settings_name = SETTING

    def get_setting(self, key: str, default: Any = None) -> Any:
        """
        The value of *key* in the dictionary setting that *settings_name* names.

        Without one: *default*, or what our own default is for a key of ``AUTOMATE_API``.
        """
        if default is None and self.settings_name == SETTING:
            default = DEFAULTS.get(key)
        return conf.option(self.settings_name, key, default)


class ConfigurableMixin(Configurable):
    """Settings for a view: ``self.get_setting("PAGE_SIZE", 50)`` reads ``AUTOMATE_API``."""

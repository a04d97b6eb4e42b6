"""Access to a view, the settings it reads, and the order in which mixins stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import Http404
from django.views import View
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser
from rest_framework.permissions import AllowAny, IsAdminUser

from automate_django import conf
from automate_django.api.problems import ParameterError, problem_exception_handler
from automate_django.refusals import has_nul
from automate_kernel.http.api.exchange import read_json_body
from automate_kernel.triggers.webhooks.request import BodyError

if TYPE_CHECKING:
    from rest_framework.views import APIView

    ViewBase = APIView
else:
    ViewBase = object

_SETTING = "AUTOMATE_API"
_TOKENS = conf.OVERRIDABLE["token_authentication"]
_NUL = "No text has a NUL character in it."


class MixinOrderGuard(ViewBase):
    """A mixin that refuses to stand behind a view that is not ours, where it has no effect."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        order = list(cls.__mro__)
        if View not in order:
            return
        foreign = next(i for i, each in enumerate(order) if _is_frameworks(each))
        late = [each.__name__ for each in order[foreign:] if issubclass(each, MixinOrderGuard)]
        if late:
            raise TypeError(
                f"{cls.__name__}: {late[0]} stands behind {order[foreign].__name__}, where it has"
                f" no effect; write it first: class {cls.__name__}({late[0]}, …)"
            )


def _is_frameworks(each: type) -> bool:
    module = each.__module__
    return issubclass(each, View) and module.partition(".")[0] in ("rest_framework", "django")


# -- settings ----------------------------------------------------------------------------------


class Configured:
    """
    A class attribute whose value is read from ``AUTOMATE_API`` at each access.

    A view that sets the attribute itself has its own; `override_settings` works for the others.
    With *load* the value is a list of classes, as paths.
    """

    def __init__(self, key: str, *, load: bool = False) -> None:
        self._key = key
        self._load = load

    def __get__(self, view: object, owner: type | None = None) -> Any:
        value = conf.option(_SETTING, self._key)
        if self._load:
            return [self._class(path) for path in value]
        return list(value) if isinstance(value, tuple) else value

    def _class(self, path: Any) -> type:
        found: type = conf.load(path, f"{_SETTING}[{self._key!r}]")
        return conf.replaced("token_authentication", found) if path == _TOKENS else found


class Configurable(MixinOrderGuard):
    """The behaviour of `ConfigurableMixin`."""

    settings_name = _SETTING

    def get_setting(self, key: str, default: Any = None) -> Any:
        """Return *key* of the setting *settings_name*, or *default*, or our own default."""
        return conf.option(self.settings_name, key, default)


class ConfigurableMixin(Configurable):
    """Settings for a view: ``self.get_setting("PAGE_SIZE", 50)`` reads ``AUTOMATE_API``."""


# -- access ------------------------------------------------------------------------------------


class Access(MixinOrderGuard):
    """The behaviour of `StaffOnlyMixin` and `PublicAPIMixin`."""

    staff_only = False
    public = False

    def get_permissions(self) -> Any:
        """Return the permissions; a public view has none."""
        if self.public and not self.staff_only:
            return [AllowAny()]
        return super().get_permissions()

    def check_permissions(self, request: Any) -> None:
        """Ask for staff first, so that a view's own `get_permissions` can't leave it out."""
        if self.staff_only and not IsAdminUser().has_permission(request, self):
            self.permission_denied(request)
        super().check_permissions(request)


class StaffOnlyMixin(Access):
    """For staff alone, whatever else is asked for."""

    staff_only = True


class PublicAPIMixin(Access):
    """For everybody. A token is optional, and a wrong one is turned away."""

    public = True


class Defaults(Access):
    """The defaults of our base classes; the mixins leave a project's own views as they are."""

    authentication_classes: Any = Configured("AUTHENTICATION", load=True)
    permission_classes: Any = Configured("PERMISSIONS", load=True)
    throttle_classes: Any = Configured("THROTTLES", load=True)

    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:
        """Turn away an address with NUL in it, before the view looks anything up by it."""
        if has_nul([request.path]):
            raise Http404  # nothing has such a key
        for name, values in request.query_params.lists():
            if has_nul([name, *values]):
                raise ParameterError({name.replace("\0", ""): [_NUL]})
        super().initial(request, *args, **kwargs)

    def get_exception_handler(self) -> Any:
        """Return the function that makes the response of an error."""
        return problem_exception_handler

    def get_parsers(self) -> Any:
        """Return the project's parsers; REST framework's own of JSON is replaced by ours."""
        parsers = super().get_parsers()
        return [BoundedJSONParser() if type(each) is JSONParser else each for each in parsers]


class BoundedJSONParser(JSONParser):
    r"""
    JSON of at most ``DATA_UPLOAD_MAX_MEMORY_SIZE`` bytes.

    Its depth and the length of its numbers are bounded as in
    `automate_kernel.triggers.webhooks.request.parse_json`. Half a surrogate pair, as
    ``"\ud83d"``, is refused. REST framework's own parser reads past Django's check of the size,
    and fails on lists that are nested thousands of times.
    """

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the parsed body; raises `RequestDataTooBig`, and `ParseError` for a bad body."""
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read() if limit is None else stream.read(limit + 1)
        if limit is not None and len(body) > limit:
            raise RequestDataTooBig
        try:
            return read_json_body(body)
        except BodyError as error:
            raise ParseError(f"JSON parse error: {error}") from None

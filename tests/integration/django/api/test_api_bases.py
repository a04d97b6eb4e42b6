"""The base classes: orders of bases, attributes, who is let in."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from automate_django.api import v1
from automate_django.api.v1 import base
from django.test import override_settings
from rest_framework.permissions import IsAdminUser
from rest_framework.response import Response
from rest_framework.test import APIClient, APIRequestFactory
from rest_framework.views import APIView
from rest_framework.viewsets import ModelViewSet

BASES = [
    base.BaseAPIView,
    base.BaseViewSet,
    base.BaseModelViewSet,
    base.BaseReadOnlyViewSet,
]
MIXINS = [getattr(base, name) for name in base.__all__ if name.endswith("Mixin")]


# -- orders of bases ------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", BASES)
def test_every_order_of_bases_is_valid(cls: type) -> None:
    """One or two mixins before or behind the base, and all of them."""
    for count in (1, 2):
        for order in itertools.permutations([cls, *MIXINS], count + 1):
            if cls in order:
                type("View", order, {})
    type("View", (*MIXINS, cls), {})
    type("View", (cls, *reversed(MIXINS)), {})


@pytest.mark.parametrize("mixin", MIXINS)
def test_a_mixin_behind_another_view_is_refused(mixin: type) -> None:
    """There it would have no effect: no filter, no limit, nobody the wiser."""
    with pytest.raises(TypeError, match="write it first"):
        type("View", (ModelViewSet, mixin), {})
    type("View", (mixin, ModelViewSet), {})


def test_a_mixin_takes_nothing_from_a_projects_own_view() -> None:
    """Its permissions stay, though the mixin stands before it."""

    class Own(APIView):
        permission_classes = [IsAdminUser]

    for mixin in MIXINS:
        assert type("View", (mixin, Own), {}).permission_classes == [IsAdminUser]


def test_the_names_are_where_the_documentation_says() -> None:
    """Both import paths give the same classes."""
    from automate_django import api

    assert v1.base is base
    for name in base.__all__:
        assert getattr(api, name) is getattr(base, name)
    with pytest.raises(AttributeError):
        api.BaseViewSets  # noqa: B018


# -- attributes -----------------------------------------------------------------------------------


def test_attributes_have_the_settings_values() -> None:
    """Class attributes can be read, extended and replaced."""
    names = [cls.__name__ for cls in base.BaseViewSet.permission_classes]
    assert names == ["IsAuthenticated", "HasRequiredScopes"]
    assert base.BaseViewSet.throttle_classes == []
    assert base.CORSMixin.cors_max_age == 600
    given = {"PERMISSIONS": ["rest_framework.permissions.AllowAny"], "CORS_MAX_AGE": 5}
    with override_settings(AUTOMATE_API=given):
        assert [cls.__name__ for cls in base.BaseAPIView.permission_classes] == ["AllowAny"]
        assert base.BaseViewSet().cors_max_age == 5
        assert type("View", (base.BaseViewSet,), {"cors_max_age": 7}).cors_max_age == 7
        assert base.BaseAPIView.as_view(cors_max_age=9)


def test_get_setting() -> None:
    """A view's own setting, or ``AUTOMATE_API`` with its defaults."""
    client = APIClient()
    assert client.get("/service/setting").json() == {"most": 3}
    with override_settings(INVOICES={"MOST": 9}):
        assert client.get("/service/setting").json() == {"most": 9}
    assert base.ConfigurableMixin().get_setting("PAGE_SIZE") == 50
    assert base.ConfigurableMixin().get_setting("PAGE_SIZE", 5) == 5


# -- who is let in --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["staff", "careless-staff", "staff-and-public"])
def test_staff_alone(world: Any, path: str) -> None:
    """Whatever the view's own permissions say, and though it is called public."""
    assert APIClient().get(f"/service/{path}").status_code == 401
    assert world.client().get(f"/service/{path}").status_code == 403
    world.alice.is_staff = True
    world.alice.save()
    assert world.client().get(f"/service/{path}").status_code == 200


def test_public(sqlite: str) -> None:
    """Everybody; but a wrong token is told so."""
    assert APIClient().get("/service/setting").status_code == 200
    response = APIClient().get("/service/setting", HTTP_AUTHORIZATION="Bearer wrong")
    assert response.status_code == 401


def test_a_session_needs_its_csrf_token(world: Any) -> None:
    """A form on another site can't use the visitor's session."""
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(world.alice)
    response = client.post("/service/projects/", {"name": "x"}, format="json")
    assert (response.status_code, "CSRF" in response.json()["detail"]) == (403, True)


# -- alone ----------------------------------------------------------------------------------------


ALONE = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from django.conf import settings
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "rest_framework", "automate_django",
    ],
    DATABASES={{}}, USE_TZ=True, ROOT_URLCONF="automate_django.api.urls", SECRET_KEY="x",
    AUTOMATE_PLUGINS={{"DISCOVER": False}}, REST_FRAMEWORK={framework!r},
)
import django
django.setup()
from django.core.management import call_command
call_command("check")
from rest_framework.generics import ListAPIView
from django.test import Client
response = Client(HTTP_HOST="localhost").get("/executions")
assert response.status_code == 401, response.status_code
print(ListAPIView.pagination_class, [each.__name__ for each in ListAPIView.permission_classes])
"""


@pytest.mark.parametrize("missing", [[], ["drf_spectacular"]])
def test_it_needs_no_more_than_rest_framework(missing: list[str]) -> None:
    """Without drf-spectacular there is no schema, and all the rest; no admin, no sessions."""
    run_alone(missing, {})


def test_our_classes_can_be_the_projects_defaults() -> None:
    """In ``REST_FRAMEWORK`` they apply to every view, and are imported in the midst of it all."""
    printed = run_alone(
        [],
        {
            "DEFAULT_AUTHENTICATION_CLASSES": ["automate_django.api.ApiTokenAuthentication"],
            "DEFAULT_PERMISSION_CLASSES": ["automate_django.api.HasRequiredScopes"],
            "DEFAULT_PAGINATION_CLASS": "automate_django.api.CursorPagination",
            "EXCEPTION_HANDLER": "automate_django.api.problem_exception_handler",
        },
    )
    assert "CursorPagination" in printed
    assert "HasRequiredScopes" in printed


@pytest.mark.parametrize("view", BASES)
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested deeper"),
        (b'{"name": ' + b"9" * 5_000 + b"}", "more than 4,300 digits"),
        (b'{"name": NaN}', "not JSON"),
        (b"\xff", "not UTF-8"),
    ],
    ids=["lists", "objects", "digits", "nan", "bytes"],
)
def test_a_body_that_can_not_be_read_is_told_so(view: Any, body: bytes, why: str) -> None:
    """400 with the reason, and no traceback; in every base class, by the project's own parsers."""

    class Posting(view):
        permission_classes = []
        authentication_classes = []

        def post(self, request: Any) -> Any:
            return Response(request.data)

    as_view = (
        Posting.as_view()
        if issubclass(view, base.BaseAPIView)
        else Posting.as_view({"post": "post"})
    )
    request = APIRequestFactory().post("/", body, content_type="application/json")
    response = as_view(request)
    assert response.status_code == 400
    assert why in response.data["detail"]
    good = APIRequestFactory().post(
        "/", b'{"name": [1, "\xc3\xbc"]}', content_type="application/json"
    )
    assert as_view(good).data == {"name": [1, "ü"]}


def test_a_views_own_parser_stays_its_own() -> None:
    """Only REST framework's own parser of JSON is replaced."""
    from rest_framework.parsers import FormParser, JSONParser

    class Own(JSONParser):
        pass

    class Viewed(base.BaseAPIView):
        parser_classes = [Own, FormParser, JSONParser]

    names = [type(each).__name__ for each in Viewed().get_parsers()]
    assert names == ["Own", "FormParser", "BoundedJSONParser"]


def run_alone(missing: list[str], framework: dict[str, Any]) -> str:
    """What a project of that one app prints, in a process of its own."""
    import subprocess
    import sys

    code = ALONE.format(missing=missing, framework=framework)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

"""
Sends what a schema allows, and what it doesn't, to a project's API, and judges the answers.

A program of its own, since a process has one Django project: ``python tester.py shop`` in a copy of
the example, ``python tester.py service`` for the project of the tests. The same seed sends the same
requests. Prints what is wrong, a line for each kind of it.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

SEED = 20
EXAMPLES = 5
SECONDS = 35.0
# However slow the machine is: with fewer a run says little.
LEAST = 120
PROJECT = Path(__file__).parents[3] / "django_project"


def shop() -> tuple[Any, list[dict[str, str]]]:
    """The example, and the headers of two programs: a store's, and one of the operators."""
    import os

    sys.path.insert(0, os.getcwd())
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    import django

    django.setup()
    from automate_django.models import ApiToken
    from django.conf import settings
    from django.core.management import call_command
    from shop import demo_data

    settings.DEBUG = False
    settings.ALLOWED_HOSTS = ["*"]
    call_command("migrate", verbosity=0)
    demo_data.load()
    scopes = [*demo_data.TOKEN_SCOPES, "outbox:*", "executions:*", "workflows:*"]
    _, store = ApiToken.objects.issue("store", tenant_id="north", scopes=scopes)
    _, operator = ApiToken.objects.issue("operator", all_tenants=True, scopes=["*"])
    from drf_spectacular.generators import SchemaGenerator

    return SchemaGenerator().get_schema(public=True), [store, operator]


def service() -> tuple[Any, list[dict[str, str]]]:
    """The project of the tests, its views that fail on purpose left out."""
    sys.path.insert(0, str(PROJECT))
    from shopsite.configured import configure

    configure()
    from automate_django.models import ApiToken
    from django.conf import settings
    from django.urls import include, path
    from drf_spectacular.generators import SchemaGenerator
    from rest_framework.routers import SimpleRouter
    from rest_framework.settings import api_settings
    from service import views
    from service.models import Country, Organization, Tag
    from shopsite.making import make_tables

    make_tables()
    acme = Organization.objects.create(name="Acme")
    Country.objects.create(name="Peru")
    Tag.objects.create(organization=acme, name="tea")
    settings.REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
    api_settings.reload()
    router = SimpleRouter()
    for name in ("project", "task", "tag", "note", "offset-note", "profile", "code", "article"):
        view = "".join(map(str.capitalize, name.split("-")))
        cls = getattr(views, f"{view}ViewSet")
        # Their own actions say nothing of what they take, and Django itself answers where no
        # address fits: for a key with a dot in it.
        extra = {each.__name__: None for each in cls.get_extra_actions()}
        cls = type(
            cls.__name__, (cls,), {"filter_backends": [], "lookup_value_regex": "[^/]+", **extra}
        )
        router.register(f"{name}s", cls, f"{name}s")
    patterns = [path("service/", include(router.urls))]
    patterns.append(path("api/automate/", include("automate_django.api.urls")))
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = patterns
    _, organization = ApiToken.objects.issue("acme", tenant_id=str(acme.pk), scopes=["*"])
    _, operator = ApiToken.objects.issue("operator", all_tenants=True, scopes=["*"])
    return SchemaGenerator(patterns=patterns).get_schema(public=True), [organization, operator]


def run(raw: Any, tokens: list[str]) -> dict[str, str]:
    """What is wrong, by operation and kind."""
    import hypothesis
    import schemathesis
    from django.core.wsgi import get_wsgi_application
    from hypothesis import HealthCheck, Phase
    from schemathesis import GenerationMode
    from schemathesis.core.failures import FailureGroup
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    names = [
        "not_a_server_error", "status_code_conformance", "content_type_conformance",
        "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    ]  # fmt: skip
    checks = CHECKS.get_by_names(names)
    (negative,) = CHECKS.get_by_names(["negative_data_rejection"])
    schema = schemathesis.openapi.from_dict(raw)
    schema.app = get_wsgi_application()
    found: dict[str, str] = {}
    begun, sent = time.monotonic(), 0

    def enough() -> bool:
        return sent >= LEAST and time.monotonic() - begun > SECONDS

    for result in schema.get_all_operations():
        if enough():
            break
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for token in tokens if mode is GenerationMode.POSITIVE else tokens[:1]:

                @hypothesis.seed(SEED)
                @hypothesis.settings(
                    max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )  # fmt: skip
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def send(case: Any) -> None:
                    nonlocal sent
                    if enough():
                        return
                    sent += 1
                    answer = case.call(headers={"Authorization": f"Bearer {token}"})
                    # A form has no types: what is wrong in JSON, a number for a text, is right there.
                    form = case.media_type not in (None, "application/json")
                    asked = [each for each in checks if not form or each is not negative]
                    try:
                        case.validate_response(answer, checks=asked)
                    except FailureGroup as group:
                        for each in group.exceptions:
                            kind = type(each).__name__
                            text = f"{case.as_curl_command()}\n{each}\n{answer.text[:600]}"
                            found.setdefault(f"{operation.label} {kind}", text)

                try:
                    send()
                except hypothesis.errors.Unsatisfiable:
                    pass  # there is nothing that it forbids
    seconds = time.monotonic() - begun
    print(f"{sent} requests in {seconds:.0f} s{', and no time for more' * enough()}")
    return found


def main() -> int:
    """Test the project that the first argument names."""
    warnings.simplefilter("ignore")
    raw, tokens = {"shop": shop, "service": service}[sys.argv[1]]()
    raw = json.loads(json.dumps(raw, default=str))
    found = run(raw, tokens)
    for where, text in found.items():
        print(f"--- {where}\n{text}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

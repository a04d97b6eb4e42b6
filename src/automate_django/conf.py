"""
The settings, all of them optional.

``AUTOMATE_PROVIDERS``, ``AUTOMATE_CONNECTORS``
    Lists of classes, as dotted paths: ``["myapp.providers.MyCustomProvider"]``. Installed plugins
    are found without being listed.
``AUTOMATE_HOOKS``
    A list of dotted paths of modules or objects with hook functions. In ``automate_configure``
    a project adds its own actions and handlers to the kernel.
``AUTOMATE_SECRETS``
    The secrets backends, asked in order. Each is a dotted path, the key of an installed plugin,
    an instance, or ``{"BACKEND": path, "OPTIONS": {…}}``, whose options go to the class. Left
    out, environment variables ``AUTOMATE_SECRET_…`` are read.
``AUTOMATE_WORKFLOWS``
    A list of workflows: files and folders (``BASE_DIR / "workflows"``), or dotted paths of
    workflows and of modules that hold some.
``AUTOMATE_CONFIG``
    The config of plugins by key: ``{"slack": {"token": "$secret:SLACK_TOKEN"}}``.
``AUTOMATE_ENV_ALLOW``
    The environment variables that templates may read as ``$env:NAME``. None by default.
``AUTOMATE_OUTBOX``
    ``USING``: the database's alias (left out, the database router says). ``STORE``:
    ``"skip_locked"``, ``"optimistic"`` or the dotted path of an ``OutboxStore`` (left out, what
    suits the database). ``LEASE_SECONDS``: 300. ``LISTEN``: False where LISTEN doesn't work on
    PostgreSQL, behind a pooler in transaction mode. ``RETENTION_SECONDS``: for how long what is
    COMPLETED is kept, 0 for not at all; ``FAILED_RETENTION_SECONDS``: what FAILED or was CANCELLED
    (left out, for ever).
``AUTOMATE_WORKER``
    What ``manage.py automate_worker`` starts with: ``PROCESSES``: 1. ``SLOTS``: calls at once in a
    process, 10. ``GRACE_SECONDS``: for how long a stopping worker waits for what runs, 30.
    ``LOG_FORMAT``: ``"json"`` or ``"text"`` (left out, Django's ``LOGGING`` says).
``AUTOMATE_ADMIN``
    ``PAGES``: False for no operator pages. ``SITE``: the dotted path of the ``AdminSite`` that gets
    them (left out, the default one). ``TENANT``: the dotted path of a function that is given a
    request and returns its tenant. ``TENANT_PATHS``: how models lead to their tenant, where the
    admin classes can't tell: ``{"auth.User": "membership__tenant_id"}``.
``AUTOMATE_API``
    What views of `automate_django.api` have unless they say otherwise: ``AUTHENTICATION``,
    ``PERMISSIONS``, ``THROTTLES`` (lists of paths), ``PAGINATION``, ``PAGE_SIZE``,
    ``MAX_PAGE_SIZE``, ``CORS_…``, ``RATE_LIMIT_…``, ``TRUSTED_PROXIES``, ``TENANT``,
    ``IDEMPOTENCY_HOURS``, ``PROBLEM_TYPES``. See `automate_django.api.options`.
``AUTOMATE_PLUGINS``
    ``DISCOVER``: False for only what is listed here. ``DISABLED``: plugins that must not run.
    ``WINNERS``: which of several plugins gets a key that all of them claim. ``STRICT``: True for a
    broken plugin to be an error.
``AUTOMATE_OVERRIDES``
    The project's own classes in place of ours, as dotted paths by name: ``kernel``, a
    `automate_kernel.Kernel`. ``storage``, an `automate_django.storage.DjangoStorage`.
    ``outbox_store``, an `automate_kernel.outbox.OutboxStore`, whatever ``AUTOMATE_OUTBOX`` says of
    one. ``workflow_source``, an `automate_django.definitions.DatabaseWorkflows`.
    ``token_authentication``, an `automate_django.api.tokens.ApiTokenAuthentication`.
    ``tenant_resolver``, a function that is given a request and returns its tenant, for the admin
    and the API alike. All but the last are subclasses, and made with the same arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from django.conf import settings

from automate_kernel.errors import ConfigError, nearest, type_name

__all__ = [
    "KEYS",
    "OVERRIDABLE",
    "is_plugin_key",
    "listed",
    "load",
    "option",
    "options",
    "replaced",
    "secrets_backends",
    "setting",
    "unknown",
    "workflows",
]

OVERRIDABLE: Mapping[str, str] = {
    "kernel": "automate_kernel.kernel.Kernel",
    "storage": "automate_django.storage.DjangoStorage",
    "outbox_store": "automate_kernel.outbox.OutboxStore",
    "workflow_source": "automate_django.definitions.DatabaseWorkflows",
    "token_authentication": "automate_django.api.tokens.ApiTokenAuthentication",
    "tenant_resolver": "automate_django.tenants.tenant_for_request",
}
"""What ``AUTOMATE_OVERRIDES`` may replace: classes by their subclasses, a function by another."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "AUTOMATE_PROVIDERS": (),
    "AUTOMATE_CONNECTORS": (),
    "AUTOMATE_HOOKS": (),
    "AUTOMATE_SECRETS": (),
    "AUTOMATE_WORKFLOWS": (),
    "AUTOMATE_CONFIG": (),
    "AUTOMATE_ENV_ALLOW": (),
    "AUTOMATE_OUTBOX": (
        "USING",
        "STORE",
        "LEASE_SECONDS",
        "LISTEN",
        "RETENTION_SECONDS",
        "FAILED_RETENTION_SECONDS",
    ),
    "AUTOMATE_WORKER": ("PROCESSES", "SLOTS", "GRACE_SECONDS", "LOG_FORMAT"),
    "AUTOMATE_ADMIN": ("PAGES", "SITE", "TENANT", "TENANT_PATHS"),
    "AUTOMATE_API": (
        "AUTHENTICATION",
        "PERMISSIONS",
        "THROTTLES",
        "PAGINATION",
        "PAGE_SIZE",
        "MAX_PAGE_SIZE",
        "CORS_ALLOWED_ORIGINS",
        "CORS_ALLOWED_METHODS",
        "CORS_ALLOWED_HEADERS",
        "CORS_EXPOSED_HEADERS",
        "CORS_ALLOW_CREDENTIALS",
        "CORS_MAX_AGE",
        "RATE_LIMIT_PER_MINUTE",
        "RATE_LIMIT_CACHE",
        "RATE_LIMIT_FAIL_OPEN",
        "TRUSTED_PROXIES",
        "TENANT",
        "IDEMPOTENCY_HOURS",
        "PROBLEM_TYPES",
    ),
    "AUTOMATE_PLUGINS": ("DISCOVER", "DISABLED", "WINNERS", "STRICT"),
    "AUTOMATE_OVERRIDES": tuple(OVERRIDABLE),
}
"""Every setting, and the keys that it may have if it is a dictionary of our keys."""

_PREFIX = "AUTOMATE_"
T = TypeVar("T")


def setting(name: str, default: Any = None) -> Any:
    """The setting *name*, or *default* if it is missing or None."""
    value = getattr(settings, name, None)
    return default if value is None else value


def options(name: str) -> Mapping[str, Any]:
    """The dictionary setting *name*, empty if it is missing."""
    value = setting(name, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a dictionary, not {type_name(value)}")
    return value


def option(name: str, key: str, default: Any = None) -> Any:
    """The value of *key* in the dictionary setting *name*."""
    value = options(name).get(key)
    return default if value is None else value


def replaced(name: str, ours: T) -> T:
    """What ``AUTOMATE_OVERRIDES`` has in place of *ours*; raises `ConfigError` if that is wrong."""
    path = option("AUTOMATE_OVERRIDES", name)
    if path is None:
        return ours
    setting_name = f"AUTOMATE_OVERRIDES[{name!r}]"
    found = load(path, setting_name)
    if isinstance(ours, type):
        if not (isinstance(found, type) and issubclass(found, ours)):
            raise ConfigError(
                f"{setting_name}: {path!r} is no subclass of {ours.__qualname__}",
                hint=f"derive it from {ours.__module__}.{ours.__qualname__}",
            )
    elif not callable(found):
        raise ConfigError(f"{setting_name}: {path!r} can't be called", hint="name a function")
    return cast("T", found)


def listed(name: str) -> list[Any]:
    """The list setting *name*, empty if it is missing."""
    value = setting(name, ())
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(
            f"{name} must be a list, not {type_name(value)}",
            hint=f"write [{value!r}]" if isinstance(value, str) else None,
        )
    return list(value)


def unknown() -> list[tuple[str, str]]:
    """Each setting or key that nobody reads, and the name that may be meant (or nothing)."""
    found = [
        (name, _near(name, KEYS)) for name in dir(settings) if _is_ours(name) and name not in KEYS
    ]
    for name, keys in KEYS.items():
        value = setting(name, {}) if keys else {}
        given = value if isinstance(value, Mapping) else ()
        found += [
            (f"{name}[{key!r}]", _near(str(key), keys) or _near(str(key).upper(), keys))
            for key in given
            if key not in keys
        ]
    return found


def _is_ours(name: str) -> bool:
    return name.startswith(_PREFIX) and not name.startswith("AUTOMATE_SECRET_")


def _near(name: str, names: Iterable[str]) -> str:
    return nearest(name, names) or ""


def load(path: Any, name: str) -> Any:
    """
    What *path* (``package.module.Name``, or with a colon) stands for; anything but text as it is.

    Raises `ConfigError` that names the setting *name*.
    """
    if not isinstance(path, str):
        return path
    try:
        return _imported(path.replace(":", "."))
    except Exception as error:
        raise ConfigError(
            f"{name}: {path!r} can't be imported: {type(error).__name__}: {error}",
            hint="give the dotted path of a module and of a name in it",
        ) from error


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        return import_module(path)
    holder = import_module(module)
    if not hasattr(holder, name) and hasattr(holder, "__path__") and find_spec(path):
        return import_module(path)
    return getattr(holder, name)


def secrets_backends() -> list[Any] | None:
    """The backends of ``AUTOMATE_SECRETS``, made; None if it is missing."""
    if setting("AUTOMATE_SECRETS") is None:
        return None
    return [_secrets_backend(entry) for entry in listed("AUTOMATE_SECRETS")]


def is_plugin_key(entry: Any) -> bool:
    """Whether *entry* is the key of an installed plugin, and no path."""
    return isinstance(entry, str) and not {".", ":"} & set(entry)


def _secrets_backend(entry: Any) -> Any:
    arguments: Mapping[str, Any] = {}
    if isinstance(entry, Mapping):
        if set(entry) - {"BACKEND", "OPTIONS"} or "BACKEND" not in entry:
            raise ConfigError(
                "AUTOMATE_SECRETS: an entry has other keys than BACKEND and OPTIONS",
                hint="write {'BACKEND': 'myapp.secrets.VaultBackend', 'OPTIONS': {…}}",
            )
        entry, arguments = entry["BACKEND"], entry.get("OPTIONS") or {}
    if is_plugin_key(entry) and not arguments:
        return entry
    backend = load(entry, "AUTOMATE_SECRETS")
    if not isinstance(backend, type):
        return backend
    try:
        return backend(**arguments)
    except TypeError:
        # Its text may hold the options, and those may hold a token.
        raise ConfigError(
            f"AUTOMATE_SECRETS: {backend.__qualname__} can't be made with these options",
            hint=f"it was given: {', '.join(arguments) or 'none'}",
        ) from None


def workflows() -> list[Any]:
    """The entries of ``AUTOMATE_WORKFLOWS``: files and folders as paths, the others loaded."""
    found: list[Any] = []
    for entry in listed("AUTOMATE_WORKFLOWS"):
        if not isinstance(entry, str):
            found.append(entry)
        elif "/" in entry or "\\" in entry or entry.endswith((".yaml", ".yml", ".json", ".py")):
            found.append(Path(entry))
        else:
            found += _workflows_in(load(entry, "AUTOMATE_WORKFLOWS"), entry)
    return found


def _workflows_in(loaded: Any, path: str) -> list[Any]:
    if not isinstance(loaded, ModuleType):
        return list(loaded) if isinstance(loaded, (list, tuple)) else [loaded]
    held = [getattr(loaded, "workflow", None), *getattr(loaded, "workflows", ())]
    if not any(held):
        raise ConfigError(
            f"AUTOMATE_WORKFLOWS: module {path!r} holds no workflow",
            hint="name one in it, or call it `workflow`, or a list of them `workflows`",
        )
    return [each for each in held if each is not None]

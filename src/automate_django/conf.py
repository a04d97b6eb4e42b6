"""
The settings, all of them optional.

``AUTOMATE_PROVIDERS``, ``AUTOMATE_CONNECTORS``
    Lists of classes, as dotted paths: ``["myapp.providers.MyCustomProvider"]``. Installed plugins
    need no entry.
``AUTOMATE_HOOKS``
    A list of dotted paths of modules or objects with hook functions. In ``automate_configure``
    a project adds its own actions and handlers to the kernel.
``AUTOMATE_SECRETS``
    The secrets backends, asked in order. Each is a dotted path, the key of an installed plugin,
    an instance, or ``{"BACKEND": path, "OPTIONS": {…}}``, whose options go to the class. By
    default environment variables ``AUTOMATE_SECRET_…`` are read.
``AUTOMATE_WORKFLOWS``
    A list of workflows: files and folders (``BASE_DIR / "workflows"``), or dotted paths of
    workflows and of modules that hold some.
``AUTOMATE_CONFIG``
    The config of plugins by key: ``{"slack": {"token": "$secret:SLACK_TOKEN"}}``.
``AUTOMATE_COMMANDS``
    The settings of commands that plugins bring, by the commands' names: ``manage.py automate mcp``
    reads ``{"mcp": {…}}``.
``AUTOMATE_EXECUTORS``
    Other places where operations run, by name: ``{"gpu": {"type": "nats", "servers": […]}}``.
``AUTOMATE_RELAYS``
    Other systems that get events, by name: ``{"orders": {"to": "nats", "events": ["order.*"]}}``.
``AUTOMATE_SUBSCRIPTIONS``
    Brokers whose events come in, by name: ``{"orders": {"from": "nats", "stream": "SHOP"}}``.
``AUTOMATE_ENV_ALLOW``
    The environment variables that templates may read as ``$env:NAME``. None by default.
``AUTOMATE_OUTBOX``
    ``USING``: the database's alias; by default the database router chooses. ``STORE``:
    ``"skip_locked"``, ``"optimistic"`` or the dotted path of an ``OutboxStore``; the default
    suits the database. ``LEASE_SECONDS``: 15. ``LISTEN``: False where LISTEN doesn't
    work on PostgreSQL, behind a pooler in transaction mode. ``RETENTION_SECONDS``: the age at
    which COMPLETED items are deleted, 0 for at once. ``FAILED_RETENTION_SECONDS``: the same for
    FAILED and CANCELLED items, which are kept by default. ``OUTPUTS``: the folder of outputs that
    are too large for a row, an ``OutputStore``, or ``{"STORE": key, "OPTIONS": {…}}`` with the key
    of a plugin; all processes share it.
``AUTOMATE_WORKER``
    The defaults of ``manage.py automate_worker``. ``PROCESSES``: 1. ``SLOTS``: calls at once in a
    process, 10. ``GRACE_SECONDS``: the time that a stopping worker gives to running calls, 30.
    ``VERSION``: that of the project's code, as text; workers of the latest version decide what
    events start while old and new ones run side by side. ``LOG_FORMAT``: ``"json"`` or
    ``"text"``; by default Django's ``LOGGING`` decides.
``AUTOMATE_ADMIN``
    ``PAGES``: False for no operator pages. ``SITE``: the dotted path of the ``AdminSite`` that gets
    them; by default the default site. ``TENANT``: the dotted path of a function that takes a
    request and returns its tenant. ``TENANT_PATHS``: the lookup from a model to its tenant, where
    the admin classes have none: ``{"auth.User": "membership__tenant_id"}``.
    ``AUDIT_RETENTION_SECONDS``: the age at which entries of the audit trail are deleted.
``AUTOMATE_APPROVALS``
    ``PUBLIC_URL``: where the links of approvals lead to, ``"https://shop.example/api/automate"`` if
    the API's URLs are there. ``SIGNING_KEYS``: the keys that sign them, the first one, and verify
    them; by default they follow from ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.
``AUTOMATE_API``
    The defaults of the views in `automate_django.api`:

    =========================== ================================================================
    ``AUTHENTICATION``          classes, as paths; our tokens, then Django's sessions
    ``PERMISSIONS``             classes, as paths; authenticated requests, within a token's scopes
    ``THROTTLES``               classes, as paths; none, since `RateLimitMixin` counts exactly
    ``PAGINATION``              ``"cursor"`` or ``"offset"``
    ``PAGE_SIZE``               rows on a page, 50
    ``MAX_PAGE_SIZE``           rows that a client may ask for, 200
    ``CORS_ALLOWED_ORIGINS``    origins, such as ``"https://app.example"``, or ``["*"]``; none
    ``CORS_ALLOWED_METHODS``    methods that another origin's scripts may use
    ``CORS_ALLOWED_HEADERS``    headers that they may send
    ``CORS_EXPOSED_HEADERS``    headers of answers that they may read
    ``CORS_ALLOW_CREDENTIALS``  True if they may send cookies; False
    ``CORS_MAX_AGE``            seconds for which a browser keeps a preflight's answer, 600
    ``RATE_LIMIT_PER_MINUTE``   requests of one client; the default of the view's class
    ``RATE_LIMIT_CACHE``        the alias of the cache that counts, ``"default"``
    ``RATE_LIMIT_FAIL_OPEN``    True if requests pass while that cache fails; True
    ``TRUSTED_PROXIES``         the number of your proxies that add to ``X-Forwarded-For``; 0
    ``TENANT``                  a function (path) that takes a request and returns its tenant's id
    ``IDEMPOTENCY_HOURS``       hours for which the answer to an ``Idempotency-Key`` is kept, 24
    ``PROBLEM_TYPES``           the address of your explanations: ``type`` is this and the code
    =========================== ================================================================
``AUTOMATE_OPERATIONS``
    ``API``: the operations that clients of the API may call, as names and patterns:
    ``["slack.post_message", "http.*"]``; a destructive one by its name alone. ``PAGES``: those of
    the page Operations in the admin. By default none. ``SECONDS``: the longest that a call takes,
    30. ``MAX_OUTPUT_BYTES``: the largest output, 1,000,000.
``AUTOMATE_PLUGINS``
    ``AUTODISCOVER``: False to leave the module ``automation`` of the installed apps alone.
    ``DISCOVER``: False to use listed plugins only. ``DISABLED``: plugins that must not run.
    ``WINNERS``: the plugin that gets a key which several claim. ``STRICT``: True for a broken
    plugin to be an error.
``AUTOMATE_OVERRIDES``
    The project's own classes in place of ours, as dotted paths by name: ``kernel``, a
    `automate_kernel.Kernel`. ``storage``, an `automate_django.storage.DjangoStorage`.
    ``outbox_store``, an `automate_kernel.outbox.OutboxStore`, which wins over ``AUTOMATE_OUTBOX``.
    ``workflow_source``, an `automate_kernel.workflows.steer.documents.StoredWorkflows`.
    ``token_authentication``, an `automate_django.api.tokens.ApiTokenAuthentication`.
    ``tenant_resolver``, a function that takes a request and returns its tenant, for the admin
    and the API alike. All but the last are subclasses, made with the same arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import salted_hmac

from automate_kernel.base.errors import ConfigError, nearest, type_name

OVERRIDABLE: Mapping[str, str] = {
    "kernel": "automate_kernel.kernel.Kernel",
    "storage": "automate_django.storage.DjangoStorage",
    "outbox_store": "automate_kernel.outbox.OutboxStore",
    "workflow_source": "automate_kernel.workflows.steer.documents.StoredWorkflows",
    "token_authentication": "automate_django.api.tokens.ApiTokenAuthentication",
    "tenant_resolver": "automate_django.tenants.tenant_for_request",
}
"""Classes that ``AUTOMATE_OVERRIDES`` may replace by subclasses, and a function."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "AUTOMATE_PROVIDERS": {},
    "AUTOMATE_CONNECTORS": {},
    "AUTOMATE_HOOKS": {},
    "AUTOMATE_SECRETS": {},
    "AUTOMATE_WORKFLOWS": {},
    "AUTOMATE_CONFIG": {},
    "AUTOMATE_COMMANDS": {},
    "AUTOMATE_EXECUTORS": {},
    "AUTOMATE_RELAYS": {},
    "AUTOMATE_SUBSCRIPTIONS": {},
    "AUTOMATE_ENV_ALLOW": {},
    "AUTOMATE_OUTBOX": {
        "USING": None,
        "STORE": None,
        "LEASE_SECONDS": 15,
        "LISTEN": True,
        "RETENTION_SECONDS": None,
        "FAILED_RETENTION_SECONDS": None,
        "OUTPUTS": None,
    },
    "AUTOMATE_WORKER": dict.fromkeys(
        ("PROCESSES", "SLOTS", "GRACE_SECONDS", "VERSION", "LOG_FORMAT")
    ),
    "AUTOMATE_ADMIN": {
        "PAGES": True,
        "SITE": None,
        "TENANT": None,
        "TENANT_PATHS": None,
        "AUDIT_RETENTION_SECONDS": None,
    },
    "AUTOMATE_APPROVALS": {"PUBLIC_URL": None, "SIGNING_KEYS": None},
    "AUTOMATE_API": {
        "AUTHENTICATION": (
            "automate_django.api.tokens.ApiTokenAuthentication",
            "rest_framework.authentication.SessionAuthentication",
        ),
        "PERMISSIONS": (
            "rest_framework.permissions.IsAuthenticated",
            "automate_django.api.tokens.HasRequiredScopes",
        ),
        "THROTTLES": (),
        "PAGINATION": "cursor",
        "PAGE_SIZE": 50,
        "MAX_PAGE_SIZE": 200,
        "CORS_ALLOWED_ORIGINS": (),
        "CORS_ALLOWED_METHODS": ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"),
        "CORS_ALLOWED_HEADERS": (
            "accept",
            "authorization",
            "content-type",
            "idempotency-key",
            "x-csrftoken",
            "x-requested-with",
        ),
        "CORS_EXPOSED_HEADERS": (
            "idempotency-replayed",
            "link",
            "location",
            "ratelimit-limit",
            "ratelimit-remaining",
            "ratelimit-reset",
            "retry-after",
        ),
        "CORS_ALLOW_CREDENTIALS": False,
        "CORS_MAX_AGE": 600,
        "RATE_LIMIT_PER_MINUTE": None,
        "RATE_LIMIT_CACHE": "default",
        "RATE_LIMIT_FAIL_OPEN": True,
        "TRUSTED_PROXIES": 0,
        "TENANT": None,
        "IDEMPOTENCY_HOURS": 24,
        "PROBLEM_TYPES": None,
    },
    "AUTOMATE_OPERATIONS": {"API": (), "PAGES": (), "SECONDS": 30, "MAX_OUTPUT_BYTES": 1_000_000},
    "AUTOMATE_PLUGINS": {
        "AUTODISCOVER": True,
        "DISCOVER": True,
        "DISABLED": (),
        "WINNERS": None,
        "STRICT": False,
    },
    "AUTOMATE_OVERRIDES": dict.fromkeys(OVERRIDABLE),
}
"""Every setting; for a dictionary of our keys each key with its default."""

KEYS: Mapping[str, tuple[str, ...]] = {name: tuple(keys) for name, keys in DEFAULTS.items()}
"""Every setting, and the keys that it may have if it is a dictionary of our keys."""

_PREFIX = "AUTOMATE_"
T = TypeVar("T")


def setting(name: str, default: Any = None) -> Any:
    """Return the setting *name*, or *default* if it is missing or None."""
    value = getattr(settings, name, None)
    return default if value is None else value


def options(name: str) -> Mapping[str, Any]:
    """Return the dictionary setting *name*, empty if it is missing."""
    value = setting(name, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a dictionary, not {type_name(value)}")
    return value


def option(name: str, key: str, default: Any = None) -> Any:
    """Return *key* of the dictionary setting *name*; else *default*, or the key's own default."""
    value = options(name).get(key)
    if value is not None:
        return value
    return DEFAULTS.get(name, {}).get(key) if default is None else default


def loaded(name: str, key: str) -> Any:
    """Import the path that *key* of the setting *name* holds; None if it isn't set."""
    return load(option(name, key), f"{name}[{key!r}]")


def replaced(name: str, ours: T) -> T:
    """Return the replacement of *ours* in ``AUTOMATE_OVERRIDES``, or *ours* itself."""
    path = option("AUTOMATE_OVERRIDES", name)
    if path is None:
        return ours
    setting_name = f"AUTOMATE_OVERRIDES[{name!r}]"
    found = load(path, setting_name)
    if isinstance(ours, type):
        if not (isinstance(found, type) and issubclass(found, ours)):
            text = f"{setting_name}: {path!r} is no subclass of {ours.__qualname__}"
            raise ConfigError(text, hint=f"derive it from {ours.__module__}.{ours.__qualname__}")
    elif not callable(found):
        raise ConfigError(f"{setting_name}: {path!r} can't be called", hint="name a function")
    return cast("T", found)


def listed(name: str) -> list[Any]:
    """Return the list setting *name*, empty if it is missing."""
    value = setting(name, ())
    if isinstance(value, str) or not isinstance(value, Iterable):
        hint = f"write [{value!r}]" if isinstance(value, str) else None
        raise ConfigError(f"{name} must be a list, not {type_name(value)}", hint=hint)
    return list(value)


def unknown() -> list[tuple[str, str]]:
    """Find unknown settings and keys, each with the name that may be meant, or an empty text."""
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
    Import *path*, ``package.module.Name`` or with a colon; anything but text is returned as it is.

    Raises `ConfigError` with the name of the setting, *name*.
    """
    if not isinstance(path, str):
        return path
    from automate_kernel.plugins.targets import load_target, normal_target

    try:
        return load_target(normal_target(path))
    except Exception as error:
        text = f"{name}: {path!r} can't be imported: {type(error).__name__}: {error}"
        hint = "give the dotted path of a module and of a name in it"
        raise ConfigError(text, hint=hint) from error


def secrets_backends() -> list[Any] | None:
    """Make the backends of ``AUTOMATE_SECRETS``; None if the setting is missing."""
    if setting("AUTOMATE_SECRETS") is None:
        return None
    return [_secrets_backend(entry) for entry in listed("AUTOMATE_SECRETS")]


def is_plugin_key(entry: Any) -> bool:
    """Return True if *entry* is the key of an installed plugin, not a path."""
    return isinstance(entry, str) and not {".", ":"} & set(entry)


def output_store() -> Any:
    """Return ``AUTOMATE_OUTBOX["OUTPUTS"]`` as a kernel takes it."""
    given = option("AUTOMATE_OUTBOX", "OUTPUTS")
    if not isinstance(given, Mapping):
        return given
    name, options = _with_options(given, "STORE", "AUTOMATE_OUTBOX['OUTPUTS']", "'s3'")
    return {**options, "store": name}


def _with_options(
    entry: Mapping[str, Any], name: str, place: str, example: str
) -> tuple[Any, Mapping[str, Any]]:
    """Return what an entry with ``OPTIONS`` names by its key *name*, and these options."""
    if set(entry) - {name, "OPTIONS"} or name not in entry:
        text = f"{place}: an entry has other keys than {name} and OPTIONS"
        raise ConfigError(text, hint=f"write {{'{name}': {example}, 'OPTIONS': {{…}}}}")
    return entry[name], entry.get("OPTIONS") or {}


def _secrets_backend(entry: Any) -> Any:
    arguments: Mapping[str, Any] = {}
    if isinstance(entry, Mapping):
        entry, arguments = _with_options(
            entry, "BACKEND", "AUTOMATE_SECRETS", "'myapp.secrets.VaultBackend'"
        )
    if is_plugin_key(entry):
        return {"backend": entry, **arguments} if arguments else entry
    backend = load(entry, "AUTOMATE_SECRETS")
    if not isinstance(backend, type):
        return backend
    try:
        return backend(**arguments)
    except TypeError:
        # Its text may hold the options, and those may hold a token.
        text = f"AUTOMATE_SECRETS: {backend.__qualname__} can't be made with these options"
        hint = f"it was given: {', '.join(arguments) or 'none'}"
        raise ConfigError(text, hint=hint) from None


def signing_keys() -> list[str]:
    """Return the keys that sign links: the setting's, or those that follow from ``SECRET_KEY``."""
    own = option("AUTOMATE_APPROVALS", "SIGNING_KEYS")
    if own is not None:
        if isinstance(own, str) or not isinstance(own, Iterable):
            raise ConfigError("AUTOMATE_APPROVALS['SIGNING_KEYS'] must be a list of texts")
        return list(own)
    try:
        secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    except ImproperlyConfigured:
        return []  # a project without one has no links
    return [
        salted_hmac(
            "automate_django.approvals", "link", secret=each, algorithm="sha256"
        ).hexdigest()
        for each in secrets
    ]


def workflows() -> list[Any]:
    """Return the entries of ``AUTOMATE_WORKFLOWS``: files and folders as paths, others loaded."""
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
        hint = "name one in it, or call it `workflow`, or a list of them `workflows`"
        raise ConfigError(f"AUTOMATE_WORKFLOWS: module {path!r} holds no workflow", hint=hint)
    return [each for each in held if each is not None]

"""
The page behind the link of an approval: it shows what is asked, and takes the answer.

``GET`` never decides, since mail scanners and chat programs follow links. The page needs no script,
sends its address nowhere and is kept by nobody.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from automate_kernel.base.errors import AutomateError, ConfigError, ErrorCodes
from automate_kernel.http.answers import HttpAnswer, HttpError, failure_answer
from automate_kernel.operations.schemas.fields import bound_text
from automate_kernel.secrets.logs import get_logger
from automate_kernel.triggers.webhooks.request import HeadersLike, WebhookHeaders
from automate_kernel.workflows.definition.approval import MOST_FIELDS, FormField
from automate_kernel.workflows.steer.approvals import MOST_COMMENT, ApprovalLink, Approvals

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

logger: logging.Logger = get_logger(__name__)

FORM_TYPE = "application/x-www-form-urlencoded"
_PREFIX = "form."
_NO_LONGER = (ErrorCodes.NOT_FOUND, ErrorCodes.FAILED_PRECONDITION)
_GONE = "This link can't be used. It was used already, has expired, or is not complete."


@dataclass(frozen=True, slots=True)
class ShownField:
    """A field of the form as the page shows it: what is filled in, and what is wrong with it."""

    field: FormField
    value: str
    problem: str | None = None

    @property
    def name(self) -> str:
        """Its name in what a browser sends."""
        return _PREFIX + self.field.name

    @property
    def checked(self) -> bool:
        """True for a box that is ticked."""
        return self.value == "true"

    @property
    def most(self) -> str:
        """The number of characters that it takes, as HTML has it in every language."""
        return str(self.field.max_length)

    @property
    def least(self) -> str:
        """The least number, as HTML has it; empty if there is none."""
        return bound_text(self.field.minimum)

    @property
    def greatest(self) -> str:
        """The greatest number, as HTML has it; empty if there is none."""
        return bound_text(self.field.maximum)


@dataclass(frozen=True, slots=True)
class LinkPage:
    """The page of a link: the question with its form, or that it is answered, or gone."""

    link: ApprovalLink | None = None
    fields: Sequence[ShownField] = ()
    comment: str = ""
    problem: str | None = None
    approved: bool | None = None
    gone: str | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return 410 if self.gone else 422 if self.problem else 200

    @property
    def form_fields(self) -> Markup:
        """The HTML of the form's fields and comment."""
        return fields_html(self.fields, self.comment)

    @property
    def heading(self) -> str:
        """The title of the page."""
        if self.gone or self.link is None:
            return "Nothing to decide"
        if self.approved is not None:
            return "Approved" if self.approved else "Rejected"
        return self.link.approval.title


@dataclass(frozen=True, slots=True)
class SentAnswer:
    """The form that a browser has sent: the decision, None without a button, and the rest."""

    approved: bool | None
    comment: str
    form: Mapping[str, str]

    @classmethod
    def read(cls, sent: Iterable[tuple[str, Any]]) -> SentAnswer:
        """Read the fields of a form."""
        # A box has a hidden field before it: the last counts.
        given = {name: str(value) for name, value in sent}
        return cls(
            {"approve": True, "reject": False}.get(given.get("decision", "")),
            # Browsers send a line's end as two characters.
            given.get("comment", "").replace("\r\n", "\n").strip(),
            {
                name.removeprefix(_PREFIX): value.replace("\r\n", "\n")
                for name, value in given.items()
                if name.startswith(_PREFIX)
            },
        )


def show(approvals: Approvals, token: str) -> LinkPage:
    """Return the page of a link; nothing changes."""
    try:
        link = approvals.by_token(token)
    except AutomateError as error:
        return _gone(error)
    return asking(link)


def decide(approvals: Approvals, token: str, sent: Iterable[tuple[str, Any]]) -> LinkPage:
    """Take what a browser has *sent* as the decision, and return the page that says so."""
    answer = SentAnswer.read(sent)
    try:
        link = approvals.by_token(token)
        if answer.approved is None:
            return asking(link, answer, "Choose to approve or to reject.")
        approvals.decide_by_token(
            token, approved=answer.approved, comment=answer.comment, form=answer.form
        )
    except ConfigError:
        raise
    except AutomateError as error:
        if error.code is ErrorCodes.INVALID_ARGUMENT:
            return asking(link, answer, *problems_in(error))
        if error.code is ErrorCodes.PERMISSION_DENIED:
            return asking(link, answer, f"{error.message}.")
        return _gone(error)
    return LinkPage(link, approved=answer.approved)


def problems_in(error: AutomateError) -> tuple[str, Mapping[str, str]]:
    """Return what is wrong with an answer: for the whole of it, and for single fields."""
    problems: Mapping[str, str] = error.details.get("fields", {})
    return "Some answers are not right." if problems else f"{error.message}.", problems


def asking(
    link: ApprovalLink,
    answer: SentAnswer | None = None,
    problem: str | None = None,
    problems: Mapping[str, str] | None = None,
) -> LinkPage:
    """Return the page that asks, with what was answered already and the *problems* of it."""
    fields = shown_fields(link.approval.form, answer, problems)
    return LinkPage(link, fields, answer.comment if answer else "", problem)


def shown_fields(
    form: Sequence[FormField],
    answer: SentAnswer | None = None,
    problems: Mapping[str, str] | None = None,
) -> list[ShownField]:
    """Return the fields of *form* with what was filled in, or with their defaults."""
    return [
        ShownField(
            field,
            _written(field.default) if answer is None else answer.form.get(field.name, ""),
            (problems or {}).get(field.name),
        )
        for field in form
    ]


def _written(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gone(error: AutomateError) -> LinkPage:
    # Whatever the reason, the page is the same: a stranger learns nothing. An error of another
    # class is ours, of a key that can't be read say.
    if type(error) is AutomateError and error.code in _NO_LONGER:
        return LinkPage(gone=_GONE)
    raise error


def sent_form(headers: HeadersLike, body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a form that a browser has sent; raises `HttpError` for anything else."""
    kind = WebhookHeaders(headers).get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise HttpError(415, f"send a form, as {FORM_TYPE}")
    try:
        return parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=2 * MOST_FIELDS + 10
        )
    except ValueError:  # not UTF-8, or too many fields
        raise HttpError(400, "the form can't be read") from None


# -- as HTML -------------------------------------------------------------------------------------

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; background: #f4f4f5; color: #18181b; }
main { max-width: 36rem; margin: 2rem auto; padding: 1.5rem; background: #fff; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
.text { white-space: pre-line; overflow-wrap: anywhere; }
.about { color: #52525b; font-size: .9rem; }
label { display: block; font-weight: 600; margin-top: 1rem; }
input, select, textarea { font: inherit; width: 100%; box-sizing: border-box; padding: .4rem; }
input[type=checkbox] { width: auto; }
.problem { color: #b00020; }
button { font: inherit; margin: 1.5rem .5rem 0 0; padding: .6rem 1.4rem; cursor: pointer; }
"""
_FIELDS = """\
{% for each in fields %}
{% set field = each.field %}
<label for="{{ of }}{{ each.name }}">{{ field.title }}
{%- if field.required %} (required){% endif %}</label>
{% set about %}id="{{ of }}{{ each.name }}" name="{{ each.name }}"
{%- if each.problem %} aria-invalid="true"{% endif %}
{%- if field.help or each.problem %} aria-describedby="{{ of }}about-{{ each.name }}"{% endif %}
{%- if field.required and field.type != "boolean" %} required{% endif %}{% endset %}
{% if field.type == "choice" %}
<select {{ about }}>
{% if field.default is none %}<option value=""></option>{% endif %}
{% for choice in field.choices %}
<option{% if choice == each.value %} selected{% endif %}>{{ choice }}</option>
{% endfor %}
</select>
{% elif field.type == "boolean" %}
<input type="hidden" name="{{ each.name }}" value="false">
<input type="checkbox" value="true" {{ about }}{% if each.checked %} checked{% endif %}>
{% elif field.type == "text" and field.max_length > 200 %}
<textarea rows="3" maxlength="{{ each.most }}" {{ about }}>
{{ each.value }}</textarea>
{% elif field.type == "text" %}
<input type="text" maxlength="{{ each.most }}" value="{{ each.value }}" {{ about }}>
{% elif field.type == "date" %}
<input type="date" value="{{ each.value }}" {{ about }}>
{% else %}
<input type="number" step="{{ "1" if field.type == "integer" else "any" }}" \
value="{{ each.value }}"
{%- if each.least %} min="{{ each.least }}"{% endif %}
{%- if each.greatest %} max="{{ each.greatest }}"{% endif %} {{ about }}>
{% endif %}
{% if field.help or each.problem %}
<p id="{{ of }}about-{{ each.name }}" class="about">{{ field.help or "" }}
{% if each.problem %}
<span class="problem">{{ field.title }} {{ each.problem }}.</span>
{% endif %}
</p>
{% endif %}
{% endfor %}
<label for="{{ of }}comment">Comment</label>
<textarea id="{{ of }}comment" name="comment" rows="3" maxlength="{{ longest }}">
{{ comment }}</textarea>
"""
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<title>{{ page.heading }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<h1>{{ page.heading }}</h1>
{% if page.gone %}
<p>{{ page.gone }}</p>
{% elif page.approved is not none %}
<p class="text">{{ page.link.approval.title }}</p>
<p>Your decision is recorded. You can close this page.</p>
{% else %}
{% set asked = page.link.approval %}
{% if asked.description %}<p class="text">{{ asked.description }}</p>{% endif %}
<p class="about">{{ asked.workflow }}, asked on {{ moment(asked.created_at) }}
{%- if asked.expires_at %}; answer by {{ moment(asked.expires_at) }}{% endif %}.
You decide as {{ page.link.by }}.</p>
{% if page.problem %}<p class="problem" role="alert">{{ page.problem }}</p>{% endif %}
<form method="post" accept-charset="utf-8">
{{ page.form_fields }}
{% if page.link.decision != "reject" %}
<button name="decision" value="approve">Approve</button>
{% endif %}
{% if page.link.decision != "approve" %}
<button name="decision" value="reject" formnovalidate>Reject</button>
{% endif %}
</form>
{% endif %}
</main>
</body>
</html>
"""


def _moment(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


@lru_cache(2)
def _template(source: str) -> jinja2.Template:
    import jinja2  # most processes show no page

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["moment"] = _moment
    return environment.from_string(source)


def fields_html(fields: Sequence[ShownField], comment: str = "", of: str = "") -> Markup:
    """
    Return the *fields* of an approval's form and its comment, as HTML.

    On a page with several forms their ids begin with what each is *of*.
    """
    from markupsafe import Markup

    found = _template(_FIELDS).render(
        fields=fields, comment=comment, longest=str(MOST_COMMENT), of=of
    )
    return Markup(found)  # noqa: S704  (the template has escaped it)


def page_html(page: LinkPage) -> str:
    """Return the whole of *page* as HTML, whose style `page_headers` allows."""
    return _template(_PAGE).render(page=page, style=STYLE)


def page_headers(style: str = "") -> dict[str, str]:
    """Return the headers of a page: nobody keeps, frames or passes on what it says."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if style else "'self'"
    policy = (
        f"default-src 'none'; style-src {allowed}; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "X-Robots-Tag": "noindex, nofollow",
    }


def as_html(page: LinkPage) -> HttpAnswer:
    """Return *page* as an answer."""
    headers = {"Content-Type": "text/html; charset=utf-8", **page_headers(STYLE)}
    return HttpAnswer(page.status, page_html(page), headers)


def answer_show(approvals: Approvals, token: str) -> HttpAnswer:
    """Answer ``GET``."""
    try:
        return as_html(show(approvals, token))
    except Exception as error:
        return _failed(error)


def answer_decision(
    approvals: Approvals, token: str, headers: HeadersLike, body: bytes
) -> HttpAnswer:
    """Answer ``POST``."""
    try:
        return as_html(decide(approvals, token, sent_form(headers, body)))
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> HttpAnswer:
    if isinstance(error, ConfigError):
        # How we are set up is nobody's business.
        logger.error("the page of an approval: %s", error)
        return HttpAnswer(500, {"error": "it failed; the log says why"})
    # Without the path, which has the token.
    return failure_answer(error, "the page of an approval")

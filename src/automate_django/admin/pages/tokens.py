"""API tokens: made here and shown once, listed, and revoked."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from automate_django.admin.guard import GuardedAdmin
from automate_django.admin.pages.access import operates, reach_of
from automate_django.models import ApiToken
from automate_kernel.access.roles import SCOPES

_TEXT = "_automate_token_text"


class _TokenForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of a new token."""

    scopes = forms.MultipleChoiceField(
        choices=[("*", "*: everything"), *((n, f"{n}: {told}") for n, told in SCOPES.items())],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="What it may do.",
    )
    more_scopes = forms.CharField(
        required=False, help_text="Scopes of the project's own views, with spaces between them."
    )

    all_tenants = forms.BooleanField(required=False)

    class Meta:
        model = ApiToken
        fields = ("name", "tenant_id", "all_tenants", "user_id", "expires_at")

    def clean(self) -> dict[str, Any]:
        """Put the scopes together; a token has a tenant or all of them, and not both."""
        given: dict[str, Any] = super().clean() or {}
        given["scopes"] = sorted({*given.get("scopes", ()), *given.get("more_scopes", "").split()})
        if not given["scopes"]:
            raise ValidationError({"scopes": "Without a scope it could do nothing."})
        if given.get("tenant_id") and given.get("all_tenants"):
            raise ValidationError({"all_tenants": "It has a tenant."})
        return given


class ApiTokenAdmin(GuardedAdmin):
    """
    Tokens: an operator's see those of all, anybody else the own ones.

    Who is no operator makes tokens for the own user and tenant alone, which can't do more than
    that user may. Only a superuser makes one for another user.
    """

    form = _TokenForm
    list_display = ("name", "shown", "whose", "scopes", "last_used_at", "expires_at", "state")
    list_filter = ("revoked_at",)
    search_fields = ("name", "prefix")
    ordering = ("-pk",)
    actions: Any = ("revoke_selected",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return True if the user holds Django's permission."""
        return bool(request.user.has_perm("automate_django.add_apitoken"))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a token is revoked, so that the trail of what it did has its name."""
        return False

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return all tokens for an operator; else those of the user."""
        found = ApiToken.objects.all()
        return found if operates(request) else found.filter(user_id=str(request.user.pk))

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Refuse filters by what is hidden: ``?digest__startswith=`` would find it bit by bit."""
        asked = () if request is None else (request,)  # Django 4.2 doesn't pass it on
        return not lookup.startswith("digest") and super().lookup_allowed(lookup, value, *asked)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields to choose for a new token, and those to show of another."""
        if obj is not None:
            return (
                "name", "shown", "whose", "scopes", "created_at", "last_used_at", "expires_at",
                "revoked_at",
            )  # fmt: skip
        fields = ["name", "scopes", "more_scopes", "expires_at"]
        if operates(request):
            fields += ["tenant_id", "all_tenants"]
        if _is_superuser(request):
            fields.append("user_id")
        return fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return all fields of a token that was given out: it stays so until it is revoked."""
        return self.get_fields(request, obj) if obj is not None else ()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Make the token, whose text lives as long as this request."""
        if change:
            return
        obj.scopes = form.cleaned_data["scopes"]
        if not operates(request):
            reach = reach_of(request)
            obj.tenant_id, obj.all_tenants = reach.tenant, 0
            obj.user_id = str(request.user.pk)
        elif not _is_superuser(request):
            obj.user_id = None
        setattr(request, _TEXT, obj.make_text())
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> Any:
        """Show the token on a page that nobody keeps. A message would be stored."""
        context = {"token": obj, "text": getattr(request, _TEXT)}
        page = self.own_page(request, "token_created.html", "The token", **context)
        page["Cache-Control"] = "no-store"
        return page

    @admin.display(description="token", ordering="prefix")
    def shown(self, obj: ApiToken) -> str:
        """Return the beginning of the token."""
        return obj.shown

    @admin.display(description="works for")
    def whose(self, obj: ApiToken) -> str:
        """Return the token's tenant and user."""
        tenant = "all tenants" if obj.all_tenants else f"tenant {obj.tenant_id or 'none'}"
        return tenant if obj.user_id is None else f"{tenant}, as user {obj.user_id}"

    @admin.display(description="state")
    def state(self, obj: ApiToken) -> str:
        """Return the token's state: usable, expired or revoked."""
        if obj.revoked_at is not None:
            return "revoked"
        return "usable" if obj.usable else "expired"

    @admin.action(description="Revoke selected tokens", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        """Revoke tokens: they end with the next request."""
        ended = [token for token in queryset if token.revoke()]
        for token in ended:
            self.log_change(request, token, "Revoked.")
        self.message_user(request, f"{len(ended)} tokens were revoked.", messages.SUCCESS)


def _is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))

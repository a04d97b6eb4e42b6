"""The rights on the shared pages that Django's permissions, groups and tenants give."""

from __future__ import annotations

from collections.abc import Mapping

from django.http import HttpRequest

from automate_django.admin.pages.access import reach_of
from automate_django.tenants import person_of
from automate_pages.users import User

# Who may change may look, as everywhere in the admin.
_RIGHTS: Mapping[str, str] = {
    "view_outboxitem": "view:outbox",
    "change_outboxitem": "view:outbox steer:outbox",
    "delete_outboxitem": "discard:outbox",
    "view_workflowexecution": "view:executions",
    "change_workflowexecution": "view:executions steer:executions steer:workflows",
    "add_workflowexecution": "start:executions start:workflows start:webhooks",
    "view_workflowdocument": "view:workflows view:documents",
    "change_workflowdocument": "view:workflows view:documents",
    "change_workflowschedule": "steer:schedules",
    "view_workflowwait": "view:approvals",
    "change_workflowwait": "view:approvals decide:approvals",
    "call_operation": "view:operations start:operations",
    "view_auditentry": "view:audit review:audit",
    "operate_outbox": "view:kinds steer:kinds view:workers view:plugins steer:plugins"
    " view:webhooks view:accounts administer:accounts",
}
"""The rights on single screens by the permission of the app that gives them."""


def user_of(request: HttpRequest) -> User | None:
    """
    Return the user of *request* as the pages know it; None for who sees no row at all.

    That is a user without a tenant who doesn't operate: who was forgotten in the set-up sees too
    little, never too much.
    """
    reach, user = reach_of(request), request.user
    if reach.nothing:
        return None
    held = [name for name in _RIGHTS if user.has_perm(f"automate_django.{name}")]
    rights = {right for name in held for right in _RIGHTS[name].split()}
    if any(right.startswith("view:") for right in rights):
        rights.add("view:home")
    # The same editor makes workflows and changes them.
    if all(user.has_perm(f"automate_django.{may}_workflowdocument") for may in ("add", "change")):
        rights.add("edit:documents")
    # Entries of the project's own models are each tenant's: who operates needn't see those of all.
    if "review:audit" in rights and (reach.tenant is not None or user.is_superuser):
        rights.add("administer:audit")
    person = person_of(request)
    return User(
        person.name, (), None if reach.everyone else reach.tenant, id=str(user.pk),
        groups=person.roles, rights=rights,
    )  # fmt: skip

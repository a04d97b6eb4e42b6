"""Approvals: the mail that asks a person, with the kernel's signed links."""

from __future__ import annotations

from html import escape
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from automate_mail.addresses import HeaderText, MailAddress, spaced
from automate_mail.letter import Letter


class ApprovalRequest(BaseModel):
    """The names that `notify` has of an approval, as ``{{ approval }}`` gives it."""

    model_config = ConfigDict(extra="ignore")

    to: MailAddress = Field(description="The person to ask.")
    title: str = Field(max_length=2_000, description="The question.")
    description: str | None = Field(None, max_length=20_000, description="More about it.")
    expires_at: str | None = Field(None, description="When it ends.")
    link: str = Field(max_length=4_000, description="The link to the page with both choices.")
    approve_link: str | None = Field(None, max_length=4_000, description="The link to approve.")
    reject_link: str | None = Field(None, max_length=4_000, description="The link to reject.")

    @field_validator("link", "approve_link", "reject_link")
    @classmethod
    def _check_link(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if urlsplit(value).scheme not in {"https", "http"} or len(value.split()) != 1:
            raise ValueError("is no link: set the kernel's public_url and signing_keys")
        return value

    def letter(self, subject: HeaderText | None = None) -> Letter:
        """Return the mail that asks."""
        links = {"Approve": self.approve_link, "Reject": self.reject_link}
        choices = {name: link for name, link in links.items() if link} or {"Decide": self.link}
        note = "Each link opens a page that asks once more. It works until somebody has decided."
        if self.expires_at:
            note += f" It ends at {self.expires_at}."
        paragraphs = [self.title, *([self.description] if self.description else [])]
        lines = [*paragraphs, *(f"{name}: {link}" for name, link in choices.items()), note]
        buttons = " &nbsp; ".join(
            f'<a href="{escape(link)}">{name}</a>' for name, link in choices.items()
        )
        bodies = "".join(f'<p style="white-space: pre-line">{escape(p)}</p>' for p in paragraphs)
        html = f"<html><body>{bodies}<p>{buttons}</p><p>{escape(note)}</p></body></html>"
        text = "\n\n".join(lines)
        subject = subject or spaced(self.title)[:200]
        content = {"to": [self.to], "subject": subject, "text": text, "html": html}
        return Letter.model_validate(content)

"""The template filter ``acme``."""


def acme(value: str, separator: str = "") -> str:
    """Return the initials of a name: ``AL`` of ``Ada Lovelace``."""
    return separator.join(word[0].upper() for word in str(value).split())

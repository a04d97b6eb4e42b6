"""What the SQLAlchemy storage refuses, and what it never shows."""

import pytest
import sqlalchemy as sa
from automate_kernel.errors import ConfigError
from automate_sqlalchemy import SqlAlchemyStorage
from automate_sqlalchemy.storage import shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:sekretpw@localhost/x",
        "postgresql+psycopg://localhost/x?user=u&password=sekretpw",
        "postgresql+psycopg://localhost/x?sslpassword=sekretpw",
    ],
)
def test_a_password_is_hidden_wherever_the_url_holds_it(url):
    """In its usual place and among the options."""
    text = shown(sa.make_url(url))
    assert "sekretpw" not in text
    assert "localhost" in text


def test_an_engine_without_transactions_is_refused():
    """An enqueue there would stay although its transaction was rolled back."""
    plain = sa.create_engine("sqlite://")
    with pytest.raises(ConfigError, match="AUTOCOMMIT"):
        SqlAlchemyStorage(plain.execution_options(isolation_level="AUTOCOMMIT"))
    with pytest.raises(ConfigError, match="AUTOCOMMIT"):
        SqlAlchemyStorage(sa.create_engine("sqlite://", isolation_level="AUTOCOMMIT"))
    SqlAlchemyStorage(plain)

"""The simulated OAuth token endpoint."""

import pytest
import requests

from exporter.simulator import TOKEN_PATH, RefreshToken
from testing.faults import Fault
from testing.program import TIMEOUT

from .conftest import NOON, Served

FORM = {"grant_type": "refresh_token", "client_id": "me", "client_secret": "hush", "refresh_token": "first"}


def refresh(served: Served, **form: str) -> requests.Response:
    return served.session.post(served.url + TOKEN_PATH, data=FORM | form, timeout=TIMEOUT)


@pytest.fixture
def with_refresh_token(served: Served) -> Served:
    served.account.refresh_tokens.append(RefreshToken("first", expires_at=NOON + 600))
    return served


def test_access_token_is_valid_for_four_hours(with_refresh_token: Served) -> None:
    response = refresh(with_refresh_token).json()
    assert (response["token_type"], response["expires_in"]) == ("Bearer", "14400")
    authorization = f"Bearer {response['access_token']}"
    assert with_refresh_token.get(authorization=authorization).status_code == 200
    with_refresh_token.wall.advance(14400)
    assert with_refresh_token.get(authorization=authorization).status_code == 401


def test_refresh_token_is_replaced_at_every_use(with_refresh_token: Served) -> None:
    second = refresh(with_refresh_token).json()["refresh_token"]
    repeated = refresh(with_refresh_token)
    assert (repeated.status_code, repeated.json()["error"]) == (400, "invalid_grant")
    assert refresh(with_refresh_token, refresh_token=second).status_code == 200


def test_refresh_token_expires(with_refresh_token: Served) -> None:
    with_refresh_token.wall.advance(600)
    assert refresh(with_refresh_token).json()["error"] == "invalid_grant"


def test_token_without_device_scope_is_forbidden(with_refresh_token: Served) -> None:
    response = refresh(with_refresh_token, scope="offline_access").json()
    assert with_refresh_token.get(authorization=f"Bearer {response['access_token']}").status_code == 403


def test_other_grant_types_are_refused(with_refresh_token: Served) -> None:
    response = refresh(with_refresh_token, grant_type="password")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_token_call_belongs_to_its_account(with_refresh_token: Served) -> None:
    with_refresh_token.cloud.faults.script(Fault.echo(400), account="home", endpoint="token")
    response = refresh(with_refresh_token)
    assert response.status_code == 400
    for credential in ("client_secret=hush", "refresh_token=first"):
        assert credential in response.json()["error_description"]
    assert with_refresh_token.cloud.calls[0].account == "home"
    assert with_refresh_token.get(authorization="Bearer first").status_code == 401


def test_token_call_does_not_count_for_limits(with_refresh_token: Served) -> None:
    refresh(with_refresh_token)
    assert with_refresh_token.cloud.calls[0].endpoint == "token"
    assert with_refresh_token.cloud.violations == []

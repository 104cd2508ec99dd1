import pytest
import requests

from exporter.simulator import TOKEN_PATH, Fault, RefreshToken
from tests.program import TIMEOUT

from .conftest import NOON, Served

FORM = {"grant_type": "refresh_token", "client_id": "me", "client_secret": "hush", "refresh_token": "first"}


def refresh(served: Served, **form: str) -> requests.Response:
    return served.session.post(served.url + TOKEN_PATH, data=FORM | form, timeout=TIMEOUT)


@pytest.fixture
def with_refresh_token(served: Served) -> Served:
    served.account.refresh_tokens.append(RefreshToken("first", expires_at=NOON + 600))
    return served


def test_a_refresh_token_buys_an_access_token_of_four_hours(with_refresh_token: Served) -> None:
    answer = refresh(with_refresh_token).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", "14400")
    authorization = f"Bearer {answer['access_token']}"
    assert with_refresh_token.get(authorization=authorization).status_code == 200
    with_refresh_token.wall.advance(14400)
    assert with_refresh_token.get(authorization=authorization).status_code == 401


def test_a_refresh_token_is_replaced_at_every_use(with_refresh_token: Served) -> None:
    second = refresh(with_refresh_token).json()["refresh_token"]
    spent = refresh(with_refresh_token)
    assert (spent.status_code, spent.json()["error"]) == (400, "invalid_grant")
    assert refresh(with_refresh_token, refresh_token=second).status_code == 200


def test_a_refresh_token_expires(with_refresh_token: Served) -> None:
    with_refresh_token.wall.advance(600)
    assert refresh(with_refresh_token).json()["error"] == "invalid_grant"


def test_a_scope_that_does_not_read_devices_is_forbidden_later(with_refresh_token: Served) -> None:
    answer = refresh(with_refresh_token, scope="offline_access").json()
    assert with_refresh_token.get(authorization=f"Bearer {answer['access_token']}").status_code == 403


def test_another_grant_is_refused(with_refresh_token: Served) -> None:
    answer = refresh(with_refresh_token, grant_type="password")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_a_token_call_is_its_accounts(with_refresh_token: Served) -> None:
    with_refresh_token.cloud.faults.script(Fault.echo(400), account="home", endpoint="token")
    answer = refresh(with_refresh_token)
    assert answer.status_code == 400
    for said in ("client_secret=hush", "refresh_token=first"):
        assert said in answer.json()["error_description"]
    assert with_refresh_token.cloud.calls[0].account == "home"
    assert with_refresh_token.get(authorization="Bearer first").status_code == 401


def test_a_token_call_counts_for_no_limit(with_refresh_token: Served) -> None:
    refresh(with_refresh_token)
    assert with_refresh_token.cloud.calls[0].endpoint == "token"
    assert with_refresh_token.cloud.violations == []

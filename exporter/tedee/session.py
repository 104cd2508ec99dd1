"""The session of all calls: one connection per call, without retries, redirects or cookies.

A connection is never reused. A late or second response would be taken for the response to the next call, perhaps of
another account, and the next call would fail if a NAT or the server has dropped the idle connection. With one call in
20 seconds, the cost of a new connection is negligible.
"""

from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.connectionpool
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from requests.utils import select_proxy

from .connections import HTTPConnection, HTTPSConnection, is_loopback

ENCODINGS = ("gzip", "deflate")
"""Content encodings that are accepted."""


class _Unpooled:
    """A connection pool that closes each connection after its call."""

    def _put_conn(self, conn: Any) -> None:
        if conn:
            conn.close()


class _HTTPPool(_Unpooled, urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls: Any = HTTPConnection


class _HTTPSPool(_Unpooled, urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls: Any = HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    """The adapter of requests, with these connections, also through a proxy."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = str(request.url)
        if is_loopback(urlsplit(url).hostname or ""):
            # A call to this machine must not reach a proxy, which would see it unencrypted.
            kwargs["proxies"] = None
        try:
            return super().send(request, *args, **kwargs)
        except (ValueError, TypeError):
            if select_proxy(url, kwargs.get("proxies")):
                raise InvalidProxyURL from None
            raise

    def add_headers(self, request: requests.PreparedRequest, **_kwargs: Any) -> None:
        request.headers["Connection"] = "close"

    def cert_verify(self, conn: Any, _url: str, _verify: Any, _cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"  # see HTTPSConnection for the CA certificates

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def session(user_agent: str) -> requests.Session:
    """Return a session for all accounts.

    It does not retry: a retry would be a second call within 20 seconds. It stores no cookies: those of one account
    would be sent with the calls of another. It reads no passwords from `.netrc`.

    Args:
        user_agent: `User-Agent` header of each request.
    """
    shared = requests.Session()
    shared.mount("https://", _Adapter(max_retries=0))
    shared.mount("http://", _Adapter(max_retries=0))
    shared.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    shared.headers.update(
        {"Accept": "application/json", "Accept-Encoding": ", ".join(ENCODINGS), "User-Agent": user_agent}
    )
    # Without any authentication, requests would look for the host in `.netrc`.
    shared.auth = lambda request: request
    return shared

"""The errors of the network libraries as errors of a call."""

import http.client
import re
import ssl

import requests
import urllib3
from requests.exceptions import InvalidProxyURL

from .certificates import trusted_certificates
from .deadline import Deadline
from .errors import CallError, ConnectionFailed, InvalidResponse, TimedOut, TlsFailed, TransportError

NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""The errors that the libraries underneath can raise in a call.

Show nothing of them but the result of `classify`: they contain the request, with the key, and some contain the address
of the proxy, with its password.
"""
_TLS_ERRORS = (requests.exceptions.SSLError, urllib3.exceptions.SSLError)


def classify(error: Exception, deadline: Deadline) -> TransportError:
    """Return the failure that an error of a network library means for a call with this deadline."""
    known = next((each for each in _chain(error) if isinstance(each, TransportError)), None)
    kind: type[CallError]
    match error:
        case _ if known:
            kind, problem = known.kind, known.problem
        case _ if deadline.expired:
            kind, problem = TimedOut, deadline.problem
        case _ if isinstance(error, _TLS_ERRORS) or isinstance(_innermost(error), ssl.SSLError):
            kind, problem = TlsFailed, f"TLS failed: {_describe_cause(error)}{trusted_certificates().note()}"
        case requests.exceptions.Timeout() | urllib3.exceptions.TimeoutError():
            kind, problem = TimedOut, deadline.problem
        case requests.exceptions.ContentDecodingError() | urllib3.exceptions.DecodeError():
            kind, problem = InvalidResponse, "the response cannot be decompressed"
        case InvalidProxyURL():
            kind, problem = (
                ConnectionFailed,
                "HTTPS_PROXY or ALL_PROXY must be http://user:password@host:port, with special characters as %XX",
            )
        case requests.exceptions.InvalidSchema() | requests.exceptions.InvalidURL():
            # The texts of these errors repeat the address, and that of a proxy may contain a password.
            kind, problem = (
                ConnectionFailed,
                "the connection failed: the address of the proxy, or of the API, is invalid",
            )
        case _:
            kind, problem = ConnectionFailed, f"the connection failed: {_describe_cause(error)}"
    return TransportError(kind, problem)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and the errors that libraries wrapped in it, innermost last."""
    chain: list[BaseException] = []
    todo: BaseException | None = error
    while todo is not None and todo not in chain:
        chain.append(todo)
        inner = next((arg for arg in todo.args if isinstance(arg, BaseException)), None)
        todo = getattr(todo, "reason", None) if isinstance(getattr(todo, "reason", None), BaseException) else None
        todo = todo or inner or chain[-1].__cause__ or chain[-1].__context__
    return chain


def _innermost(error: BaseException) -> BaseException:
    """Return the innermost error that has a reason."""
    chain = _chain(error)
    return next((each for each in reversed(chain) if isinstance(each, OSError) and each.strerror), chain[-1])


def _describe_cause(error: BaseException) -> str:
    """Return the innermost cause in text, without the object representations that libraries include."""
    cause = _innermost(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    # The text of a proxy may repeat what was sent to it.
    if refused := re.match("Tunnel connection failed: ([0-9]+)", str(cause)):
        status = int(refused[1])
        return f"the proxy returned HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    return type(cause).__name__

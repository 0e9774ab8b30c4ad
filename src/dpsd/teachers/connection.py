"""Requests to a service that are sent again only where the service cannot have answered.

A request is sent again, after a wait, if the connection was refused before anything was sent, or if
the service said that it did not handle the request: with status 429, or with status 503 and
``Retry-After``. After anything else (a timeout, a broken connection, another status), the images
may have been answered, and asking again could cost a second time; so that is a failure.

The token is read from the environment for each request and is stored nowhere. Redirects are not
followed, proxies that the environment names are not used, and certificates are always verified.

>>> from dpsd.teachers.address import ServiceAddress, ServiceOptions
>>> address = ServiceAddress.of("http://localhost:1/v2/models/digits")
>>> Connection(address, ServiceOptions()).get("/v2", wait=0)
Traceback (most recent call last):
    ...
dpsd.teachers.failures.RequestFailure: could not be reached (NewConnectionError)
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dpsd.errors import Setting, TeacherError
from dpsd.extras import how_to_install
from dpsd.teachers.address import TOKEN_VARIABLE, ServiceAddress, ServiceOptions
from dpsd.teachers.failures import Kind, RequestFailure
from dpsd.teachers.volley import THREADS

if TYPE_CHECKING:
    from urllib3 import HTTPConnectionPool
    from urllib3.response import BaseHTTPResponse

#: Seconds that are waited before a request is sent again: the first, and the most.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0

#: The most seconds in all that a service may ask to wait before it handles a request.
_MOST_PATIENCE = 3_600.0

#: Seconds after which an idle connection is not used again: the service may just be closing it, and
#: then nobody could tell whether a request arrived.
_IDLE = 2.0

_LONGEST_MESSAGE = 300
_DESCRIPTION_BYTES = 1 << 22


class TooLargeError(Exception):
    """The service takes only smaller requests (status 413), and has not handled this one."""


@dataclass(kw_only=True)
class Pending:
    """The limits of requests that belong together.

    Args:
        until: the time of ``time.monotonic`` after which no request may go on.
        wait: the most seconds that may be waited in all before a request is sent again.
        stop: is set when the answers are no longer wanted.
    """

    until: float | None = None
    wait: float = 900.0
    stop: threading.Event = field(default_factory=threading.Event)

    def limited(self, seconds: float) -> float:
        """Return the seconds that a request may take.

        Raises:
            RequestFailure: none are left.
        """
        left = seconds if self.until is None else min(seconds, self.until - time.monotonic())
        if left <= 0 or self.stop.is_set():
            raise RequestFailure(
                Kind.TIMEOUT, "was given no more time by ", Setting("service_seconds")
            )
        return left


class Connection:
    """Connections to the server of a model, for several threads.

    Args:
        address: the address of the model.
        options: how to call it.

    Raises:
        TeacherError: urllib3 is not installed, the bundle of certificates cannot be read, or the
            token cannot be sent.
    """

    def __init__(self, address: ServiceAddress, options: ServiceOptions) -> None:
        self._address, self._options = address, options
        self._pool = _pool(address, options)
        self._used = time.monotonic()
        self._token()
        # In a thread that nobody waits for any more, a line could come after the silence ended.
        logging.getLogger("urllib3.connectionpool").addFilter(_is_outside_volleys)

    def refresh(self) -> None:
        """Close connections that were idle for long; call this before asking."""
        if time.monotonic() - self._used > _IDLE:
            self._pool.close()
            self._pool = _pool(self._address, self._options)
        self._used = time.monotonic()

    def get(self, path: str, *, wait: float = 3.0) -> dict[str, Any] | None:
        """Return the JSON at a path, or ``None`` if the service has none (status 404).

        Raises:
            RequestFailure: there is no such answer.
        """
        pending = Pending(wait=wait)
        status, _, body = self._sent("GET", path, b"", {}, _DESCRIPTION_BYTES, pending)
        if status == 404:
            return None
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise RequestFailure(Kind.MALFORMED, f"answered with something but JSON at {path}")
        return content

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str], *, most: int, pending: Pending
    ) -> tuple[Mapping[str, str], bytes]:
        """Send a request and return the headers and the body of the answer.

        Args:
            path: the path on the server.
            body: the body of the request.
            headers: the headers of the request.
            most: the most bytes that an answer may have.
            pending: the limits of this request and of others that belong to it.

        Raises:
            TooLargeError: the request has to be smaller.
            RequestFailure: there is no answer.
        """
        status, found, content = self._sent("POST", path, body, headers, most, pending)
        if status == 404:
            raise RequestFailure(Kind.REFUSED, "answered with status 404 (Not Found)")
        self._used = time.monotonic()
        return found, content

    def _sent(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        most: int,
        pending: Pending,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request until it may have been handled."""
        from urllib3.exceptions import (
            ConnectTimeoutError,
            HTTPError,
            LocationParseError,
            NewConnectionError,
        )

        nothing_sent = (NewConnectionError, ConnectTimeoutError, LocationParseError)
        waited, pause = 0.0, _FIRST_WAIT
        while True:
            asked_wait: float | None = None
            try:
                until = time.monotonic() + pending.limited(self._options.request_seconds)
                response = self._opened(method, path, body, headers, until)
                try:
                    if response.status in (200, 404):
                        return response.status, response.headers, _read(response, most, until)
                    asked_wait = self._refused(response, until)
                finally:
                    response.close()
                failure = RequestFailure(
                    Kind.REFUSED, f"answered with status {response.status} again and again"
                )
            except nothing_sent as error:
                failure = RequestFailure(
                    Kind.CONNECTION, f"could not be reached ({type(error).__name__})"
                )
            except (HTTPError, TimeoutError) as error:
                raise _lost(error) from None
            seconds = pause if asked_wait is None else max(asked_wait, _FIRST_WAIT)
            pause = min(2 * pause, _LONGEST_WAIT)
            waited += seconds
            if waited > (pending.wait if asked_wait is None else _MOST_PATIENCE):
                raise failure from None
            if pending.until is not None and time.monotonic() + seconds > pending.until:
                raise failure from None
            pending.stop.wait(seconds)

    def _opened(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], until: float
    ) -> BaseHTTPResponse:
        from urllib3 import Timeout

        own = {"Accept": "application/json, application/octet-stream", "User-Agent": "dpsd"}
        if token := self._token():
            own["Authorization"] = f"Bearer {token}"
        left = until - time.monotonic()
        return self._pool.urlopen(
            method,
            path,
            body=body or None,
            headers={**headers, **own},
            retries=False,
            redirect=False,
            timeout=Timeout(total=left, connect=left, read=left),
            preload_content=False,
        )

    def _refused(self, response: BaseHTTPResponse, until: float) -> float | None:
        """Return the seconds to wait that the service asked for, if it is to be asked again.

        Raises:
            TooLargeError: the request has to be smaller.
            RequestFailure: the service may have handled the request.
        """
        status, after = response.status, response.headers.get("Retry-After")
        if status == 413:
            raise TooLargeError
        if status == 429 or (status == 503 and after is not None):
            return _seconds(after)
        if 300 <= status < 400:
            raise RequestFailure(
                Kind.REFUSED,
                f"answered with a redirect (status {status}), which is not followed: give the "
                "address that it leads to",
            )
        said = self._message(_read(response, _DESCRIPTION_BYTES, until))
        reason = f" ({response.reason})" if response.reason else ""
        hint = f"; is {TOKEN_VARIABLE} set to the right token?" if status in (401, 403) else ""
        raise RequestFailure(Kind.REFUSED, f"answered with status {status}{reason}{said}{hint}")

    def _message(self, body: bytes) -> str:
        """Return the protocol's own message in the body of an error; it may quote anything."""
        try:
            said = json.loads(body)["error"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return ""
        words = " ".join(str(said).split())
        if token := self._token():
            words = words.replace(token, "(the token)")
        return f": {words[:_LONGEST_MESSAGE]}"

    def _token(self) -> str:
        """Return the token, for immediate use alone.

        Raises:
            TeacherError: there is one, and it cannot or must not be sent. The message does not
                quote it.
        """
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise TeacherError(
                f"the environment variable {TOKEN_VARIABLE} holds characters that no token has"
            )
        if token and not (self._address.is_encrypted or self._address.is_local):
            raise TeacherError(
                f"{self._address.url} would send the token in {TOKEN_VARIABLE} unencrypted: give "
                "https://, or unset the variable"
            )
        return token


def _read(response: BaseHTTPResponse, most: int, until: float) -> bytes:
    """Return the body of an answer, which may neither be endless nor drip for ever."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > most:
            raise RequestFailure(Kind.MALFORMED, f"answered with more than {most:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError
    return b"".join(parts)


def _lost(error: Exception) -> RequestFailure:
    """Describe a failure after which nobody knows whether the service handled the request."""
    from urllib3.exceptions import SSLError
    from urllib3.exceptions import TimeoutError as RequestTimeoutError

    if isinstance(error, TimeoutError | RequestTimeoutError):
        return RequestFailure(Kind.TIMEOUT, "did not answer within ", Setting("request_seconds"))
    if isinstance(error, SSLError):
        # The reason of a failed verification is about the certificate, and only for public images.
        reason = " ".join(str(error.args[0] if error.args else error).split())
        return RequestFailure(
            Kind.CONNECTION,
            f"could not be reached securely: {reason[:_LONGEST_MESSAGE]}; trust an authority of "
            "your own with ",
            Setting("ca_bundle"),
        )
    return RequestFailure(Kind.CONNECTION, f"broke the connection ({type(error).__name__})")


def _seconds(after: str | None) -> float | None:
    """Return the wait that ``Retry-After`` asks for, in seconds, if it can be read.

    >>> _seconds("2"), _seconds(None), _seconds("soon")
    (2.0, None, None)
    """
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    if after is None:
        return None
    try:
        return float(Retry().parse_retry_after(after))
    except InvalidHeader:
        return None


def _pool(address: ServiceAddress, options: ServiceOptions) -> HTTPConnectionPool:
    try:
        import urllib3
    except ImportError:
        raise TeacherError(f"{address.url} needs urllib3: {how_to_install('service')}") from None
    shared: dict[str, Any] = {"port": address.port, "maxsize": options.requests_in_flight}
    if not address.is_encrypted:
        return urllib3.HTTPConnectionPool(address.host, **shared)
    try:
        # Verifies certificates and names; SSL_CERT_FILE is respected unless a bundle is given.
        context = ssl.create_default_context(cafile=options.ca_bundle)
    except (OSError, ValueError) as error:  # ssl's own errors are of the first kind
        raise TeacherError(
            Setting("ca_bundle"),
            f" {options.ca_bundle!r} cannot be read as certificates in PEM format "
            f"({type(error).__name__})",
        ) from None
    return urllib3.HTTPSConnectionPool(address.host, ssl_context=context, **shared)


def _is_outside_volleys(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith(THREADS)

"""Where a model behind a service is, and how to call it, without importing anything slow.

>>> address = ServiceAddress.of("HTTPS://Models.example:443/v2/models/digits/versions/3/")
>>> address.url, address.model, address.version
('https://models.example/v2/models/digits/versions/3', 'digits', '3')
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from dpsd.errors import Setting, TeacherError

#: The environment variable with the token that a service asks for; it is read nowhere else.
TOKEN_VARIABLE = "DPSD_TEACHER_TOKEN"

_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_PATH = re.compile(
    r"(?P<prefix>(?:/[\w.~%-]+)*?)/v2/models/(?P<model>[\w.~%-]+)"
    r"(?:/versions/(?P<version>[\w.~%-]+))?/?",
    re.ASCII,
)
_HOST = re.compile(r"[\w.-]+|[\da-f:.]+", re.ASCII | re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_FORM = "https://HOST/v2/models/NAME or https://HOST/v2/models/NAME/versions/VERSION"


def is_service(source: object) -> bool:
    """Return whether a teacher's name is the address of a service.

    >>> is_service("https://models.example/v2/models/digits"), is_service("teacher.onnx")
    (True, False)
    """
    return isinstance(source, str) and _SCHEME.match(source) is not None


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """How a service is called.

    Args:
        request_images: the most images in one request. By default, as many as fit into 4 MiB, and
            at most 64. The number is halved whenever the service says that a request is too large.
        requests_in_flight: the number of requests that are under way at once, at least 1.
        request_seconds: the seconds after which a request counts as unanswered, above 0.
        service_seconds: the most seconds that all requests about queries may take together, waits
            included, each time that a run is started or resumed; ``None`` is no limit.
        ca_bundle: a PEM file with the certificates of the authorities to trust, in place of the
            system's, or of those that the environment variable ``SSL_CERT_FILE`` names.
        plain_http: whether to send queries unencrypted (``http://``) to another machine.

    Raises:
        TeacherError: a number is not in its range.

    >>> ServiceOptions(requests_in_flight=0)
    Traceback (most recent call last):
        ...
    dpsd.errors.TeacherError: requests_in_flight must be at least 1, not 0
    """

    request_images: int | None = None
    requests_in_flight: int = 4
    request_seconds: float = 60.0
    service_seconds: float | None = None
    ca_bundle: str | None = None
    plain_http: bool = False

    def __post_init__(self) -> None:
        for name in ("request_images", "requests_in_flight"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TeacherError(Setting(name), f" must be at least 1, not {value}")
        for name in ("request_seconds", "service_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise TeacherError(Setting(name), f" must be above 0, not {value}")

    def chosen(self) -> dict[str, Any]:
        """Return the options that differ from their defaults.

        >>> ServiceOptions(request_seconds=5.0).chosen()
        {'request_seconds': 5.0}
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != _DEFAULTS[name]}


_DEFAULTS = {field.name: field.default for field in fields(ServiceOptions)}


@dataclass(frozen=True)
class ServiceAddress:
    """The address of a model behind a service, in its one spelling: budgets are kept under it.

    Attributes:
        scheme: ``"https"`` or ``"http"``.
        host: the host's name or address, in lower case.
        port: the port; ``None`` is the scheme's usual one.
        prefix: the path in front of ``/v2``, empty or beginning with a slash.
        model: the name of the model.
        version: the version of the model, if the address names one.
    """

    scheme: str
    host: str
    port: int | None
    prefix: str
    model: str
    version: str | None

    @classmethod
    def of(cls, url: str, *, plain_http: bool = False) -> ServiceAddress:
        """Read an address.

        Args:
            url: the address, ``https://HOST/v2/models/NAME``, with ``/versions/VERSION`` or
                without.
            plain_http: whether ``http://`` may lead to another machine than this one.

        Raises:
            TeacherError: the address is of another form, contains credentials, or would send
                queries unencrypted to another machine. The message quotes no credentials.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            raise TeacherError(f"the teacher's address is not a URL: give {_FORM}") from None
        shown = _without_secrets(parts)
        if "@" in parts.netloc:
            raise TeacherError(
                f"{shown}: credentials do not belong into an address, which is written to the run; "
                f"put a token into the environment variable {TOKEN_VARIABLE}"
            )
        if parts.query or parts.fragment:
            raise TeacherError(f"{shown}: leave out what follows the path; give {_FORM}")
        found = _PATH.fullmatch(parts.path)
        if found is None or not _HOST.fullmatch(parts.hostname or ""):
            raise TeacherError(f"{shown} is not the address of a model: give {_FORM}")
        address = cls(
            scheme=parts.scheme.lower(),
            host=(parts.hostname or "").lower(),
            port=None if port == _PORTS[parts.scheme.lower()] else port,
            prefix=found["prefix"],
            model=found["model"],
            version=found["version"],
        )
        if not (address.is_encrypted or address.is_local or plain_http):
            raise TeacherError(
                f"{shown} would send queries and answers unencrypted: give https://, or allow it "
                "with ",
                Setting("plain_http"),
            )
        return address

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is encrypted, and the host's certificate is verified."""
        return self.scheme == "https"

    @property
    def is_local(self) -> bool:
        """Whether the host is this machine.

        >>> ServiceAddress.of("http://127.0.0.1:8000/v2/models/digits").is_local
        True
        """
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name
            return False

    @property
    def server_path(self) -> str:
        """The path of the server's own description."""
        return f"{self.prefix}/v2"

    @property
    def model_path(self) -> str:
        """The path of the model, below which it is asked."""
        version = "" if self.version is None else f"/versions/{self.version}"
        return f"{self.server_path}/models/{self.model}{version}"

    @property
    def url(self) -> str:
        """The whole address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.model_path}"

    @property
    def fingerprint(self) -> str:
        """The name under which the teacher's budget is kept, as a service shows no content."""
        return f"service:{self.url}"

    def of_version(self, version: str) -> ServiceAddress:
        """Return the address of a version of the model.

        Raises:
            TeacherError: a version of this name cannot be part of an address.
        """
        if not re.fullmatch(r"[\w.~%-]+", version, re.ASCII):
            raise TeacherError(f"{self.url}: the service calls its version {version[:60]!a}")
        return replace(self, version=version)


def _without_secrets(parts: SplitResult) -> str:
    """Return an address for a message, without credentials and what follows the path."""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"

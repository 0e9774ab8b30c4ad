"""The file that invites a client: where the server is, how to know it, and what it transcribes.

It holds no secret. Whoever got it should compare its fingerprint over another way, such as the
telephone, as the authority in it decides whom the client's releases go to.

>>> import tempfile
>>> from pathlib import Path
>>> from dpsd.federated.flower.identities import make_authority
>>> with tempfile.TemporaryDirectory() as folder:
...     certificate = Path(folder) / "authority.crt"
...     make_authority(certificate, Path(folder) / "authority.key")
...     authority = certificate.read_text("utf-8")
>>> invitation = Invitation("hub.example:443", authority, federation="f00d", facts={"classes": 10})
>>> read_invitation(invitation_text(invitation)) == invitation
True
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dpsd.errors import ConfigError

#: The most characters of an invitation.
_LONGEST = 1 << 16

#: What a fact of a federation may be.
Fact = str | int | float | bool | list[int]


@dataclass(frozen=True)
class Invitation:
    """What a client needs to take part.

    Args:
        address: the host and port where the server is reached.
        authority: the certificate of the authority that signed the server's, as PEM; it is kept
            encoded anew, without whatever stood around it.
        federation: the federation's identity.
        facts: what the federation transcribes, for people and for checks.

    Raises:
        ConfigError: the authority is not exactly one certificate, or the address has characters
            that a terminal would obey or hide.
    """

    address: str
    authority: str
    federation: str
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.address.isprintable():
            raise ConfigError(
                f"the invitation's address {self.address!r} has characters that cannot be printed: "
                "ask for another"
            )
        try:
            found = x509.load_pem_x509_certificates(self.authority.encode())
        except ValueError:
            found = []
        if len(found) != 1:  # a client would trust servers that any of several had signed
            raise ConfigError(
                f"the invitation holds {len(found)} certificates and must hold one: ask for another"
            )
        pem = found[0].public_bytes(Encoding.PEM).decode("ascii")
        object.__setattr__(self, "authority", pem)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of all that the invitation says, in pairs of hexadecimal digits."""
        # JSON, as two versions of a library may write the same TOML differently.
        content = json.dumps(_content(self), sort_keys=True)
        digest = hashlib.sha256(content.encode("ascii")).hexdigest()
        return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def invitation_text(invitation: Invitation) -> str:
    """Return an invitation as TOML."""
    return tomli_w.dumps(_content(invitation), multiline_strings=True)


def read_invitation(text: str) -> Invitation:
    """Return the invitation that a text of TOML holds.

    Raises:
        ConfigError: it holds none.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"the invitation has more than {_LONGEST} characters: ask for another")
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of too many digits
        raise ConfigError(f"the invitation is no TOML: {error}; ask for another") from None
    texts = [found.pop(name, None) for name in ("address", "authority", "federation")]
    facts = found.pop("facts", {})
    is_whole = all(isinstance(text, str) for text in texts) and isinstance(facts, dict)
    if found or not is_whole or not all(map(_is_fact, facts.values())):
        raise ConfigError(
            "the invitation must have an address, an authority, a federation and facts: ask for "
            "another"
        )
    address, authority, federation = texts
    return Invitation(address, authority, federation, facts)


def _content(invitation: Invitation) -> dict[str, Any]:
    return {
        "address": invitation.address,
        "federation": invitation.federation,
        "authority": invitation.authority,
        "facts": dict(invitation.facts),
    }


def _is_fact(value: object) -> bool:
    if isinstance(value, list):
        return all(type(one) is int and _is_fact(one) for one in value)
    if isinstance(value, int):
        return abs(value) < 1 << 63  # the range of TOML; larger ones cannot always be written
    return isinstance(value, str | float)

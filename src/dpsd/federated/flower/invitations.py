"""The file that invites a client: where the server is, how to know it, and what it transcribes.

It holds no secret. Whoever got it should compare the fingerprint of the authority over another way,
such as the telephone, as the authority decides whom the client's releases go to.

>>> invitation = Invitation("hub.example:443", "PEM", federation="f00d", facts={"classes": 10})
>>> read_invitation(invitation_text(invitation)) == invitation
True
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

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
        authority: the certificate of the authority that signed the server's, as PEM.
        federation: the federation's identity.
        facts: what the federation transcribes, for people and for checks.
    """

    address: str
    authority: str
    federation: str
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the authority's certificate, in pairs of hexadecimal digits."""
        try:
            certificate = x509.load_pem_x509_certificate(self.authority.encode())
        except ValueError:
            raise ConfigError("the invitation holds no certificate: ask for another") from None
        digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def invitation_text(invitation: Invitation) -> str:
    """Return an invitation as TOML."""
    return tomli_w.dumps(
        {
            "address": invitation.address,
            "federation": invitation.federation,
            "authority": invitation.authority,
            "facts": dict(invitation.facts),
        },
        multiline_strings=True,
    )


def read_invitation(text: str) -> Invitation:
    """Return the invitation that a text of TOML holds.

    Raises:
        ConfigError: it holds none.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"the invitation has more than {_LONGEST} characters: ask for another")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the invitation is no TOML: {error}; ask for another") from None
    texts = [found.pop(name, None) for name in ("address", "authority", "federation")]
    facts = found.pop("facts", {})
    if found or not isinstance(facts, dict) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            "the invitation must have an address, an authority, a federation and facts: ask for "
            "another"
        )
    address, authority, federation = texts
    return Invitation(address, authority, federation, facts)

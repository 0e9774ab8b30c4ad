"""Keys and certificates, and who can read them."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dpsd.errors import ConfigError, RunError
from dpsd.federated.flower.exchange import key_of
from dpsd.federated.flower.identities import hosts_of, read_public_key
from dpsd.federated.flower.invitations import Invitation, invitation_text, read_invitation
from dpsd.federated.flower.places import ClientPlace, ServerPlace
from dpsd.federated.flower.proxies import PROXIES, proxy_configuration


@pytest.fixture
def server(tmp_path: Path) -> ServerPlace:
    place = ServerPlace(tmp_path / "server")
    place.prepare(["hub.example", "10.0.0.7"])
    return place


def shaken(server: ServerPlace, authority: Path, host: str) -> str | None:
    """Connect by TLS to a server under a name; returns the version of TLS, or raises."""
    ours, theirs = socket.socketpair()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(server.certificate, server.key)

    def serve() -> None:
        try:
            served.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, ConnectionError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    asking = ssl.create_default_context(cafile=authority)
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with asking.wrap_socket(ours, server_hostname=host) as connection:
            return connection.version()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("host", ["hub.example", "10.0.0.7", "localhost", "127.0.0.1"])
def test_a_client_trusts_the_server_under_each_of_its_names(server: ServerPlace, host: str) -> None:
    assert shaken(server, server.authority, host) == "TLSv1.3"


def test_a_client_trusts_no_other_name_and_no_other_authority(
    server: ServerPlace, tmp_path: Path
) -> None:
    other = ServerPlace(tmp_path / "other")
    other.prepare()
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, server.authority, "other.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, other.authority, "hub.example")


def test_another_name_changes_the_certificate_and_keeps_the_authority(server: ServerPlace) -> None:
    authority, certificate = server.authority.read_bytes(), server.certificate.read_bytes()
    server.prepare(["hub.example"])
    assert server.certificate.read_bytes() == certificate
    server.prepare(["new.example"])
    assert server.authority.read_bytes() == authority
    assert hosts_of(server.certificate) == {"new.example", "localhost", "127.0.0.1"}
    assert shaken(server, server.authority, "new.example") == "TLSv1.3"


def test_private_keys_can_be_read_by_their_owner_alone(server: ServerPlace, tmp_path: Path) -> None:
    client = ClientPlace(tmp_path / "client")
    client.prepare()
    for key in (server.authority_key, server.key, client.private_key):
        assert key.stat().st_mode & 0o777 == 0o600


def test_server_and_client_compute_the_same_key_of_a_client(tmp_path: Path) -> None:
    client = ClientPlace(tmp_path / "client")
    client.prepare()
    first = client.key
    assert key_of(read_public_key(client.public_key)) == first
    client.prepare()
    assert client.key == first


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "note.pub"
    with pytest.raises(RunError, match="cannot read"):
        read_public_key(file)
    file.write_text("ssh-rsa nonsense")
    with pytest.raises(ConfigError, match="holds no key"):
        read_public_key(file)


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name of a host"):
        ServerPlace(tmp_path).prepare(["höspital"])


def test_an_invitation_is_read_as_it_was_written(server: ServerPlace) -> None:
    invitation = Invitation(
        "hub.example:443",
        server.authority.read_text("utf-8"),
        "f00d",
        {"classes": 10, "shape": [1, 28, 28], "note": "digits"},
    )
    read = read_invitation(invitation_text(invitation))
    assert read == invitation
    assert read.fingerprint == invitation.fingerprint
    assert len(invitation.fingerprint) == 95


@pytest.mark.parametrize("fact", ["2026-01-01", "{}", '["a"]', f"0x{'f' * 5000}"])
def test_what_is_no_fact_is_refused(server: ServerPlace, fact: str) -> None:
    authority = server.authority.read_text("utf-8")
    text = invitation_text(Invitation("hub.example:443", authority, "f00d", {"classes": 10}))
    with pytest.raises(ConfigError, match="must have an address, an authority"):
        read_invitation(text.replace("classes = 10", f"classes = {fact}"))


@pytest.mark.parametrize("address", ["hub:443\x1b[2J", "hub:443\nconnected", "hub\u202e:443"])
def test_an_address_that_a_terminal_would_obey_is_refused(
    server: ServerPlace, address: str
) -> None:
    text = invitation_text(Invitation("PLACE:443", server.authority.read_text("utf-8"), "f00d"))
    escaped = "".join(f"\\U{ord(sign):08X}" for sign in address)
    with pytest.raises(ConfigError, match="characters that cannot be printed") as caught:
        read_invitation(text.replace("PLACE:443", escaped))
    assert str(caught.value).isprintable()


def test_the_fingerprint_covers_all_that_an_invitation_says(
    server: ServerPlace, tmp_path: Path
) -> None:
    other = ServerPlace(tmp_path / "other")
    other.prepare()
    first, second = (place.authority.read_text("utf-8") for place in (server, other))
    invitation = Invitation("hub.example:443", first, "f00d", {"rounds": 4})
    altered = [
        replace(invitation, address="hub.example:444"),
        replace(invitation, authority=second),
        replace(invitation, federation="beef"),
        replace(invitation, facts={"rounds": 5}),
        replace(invitation, facts={"rounds": "4"}),
    ]
    assert len({one.fingerprint for one in [invitation, *altered]}) == 6


def test_an_invitation_brings_exactly_one_authority(server: ServerPlace, tmp_path: Path) -> None:
    other = ServerPlace(tmp_path / "other")
    other.prepare()
    first, second = (place.authority.read_text("utf-8") for place in (server, other))
    for authority, number in ((first + second, 2), (first + first, 2), ("none", 0), ("", 0)):
        with pytest.raises(ConfigError, match=f"holds {number} certificates and must hold one"):
            Invitation("hub.example:443", authority, "f00d")
    trusted = second.replace("BEGIN CERT", "BEGIN TRUSTED CERT").replace(
        "END CERT", "END TRUSTED CERT"
    )
    hidden = Invitation("hub.example:443", f"a note\n{first}\n{trusted}", "f00d")
    assert hidden == Invitation("hub.example:443", first, "f00d")
    assert hidden.authority.count("BEGIN") == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "address = 1", "= [", "x" * 100_000, 'address = "a"\nauthority = "b"\nmore = 1'),
        f"address = {'9' * 10_000}",
        f"address = {'[' * 10_000}",
    ],
)
def test_what_is_no_invitation_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="ask for another"):
        read_invitation(text)


def test_the_certificate_is_valid_on_a_machine_whose_clock_is_behind(server: ServerPlace) -> None:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(server.certificate.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    assert certificate.not_valid_before_utc < now - datetime.timedelta(hours=12)


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_passes_on_what_clients_need_and_nothing_else(
    proxy: str, server: ServerPlace
) -> None:
    text = proxy_configuration(
        proxy,
        host="hub.example",
        outside=443,
        inside=9093,
        authority=server.authority,
        certificate=server.certificate,
        key=server.key,
    )
    assert text.count("{") == text.count("}")
    assert text.count("127.0.0.1:9093") == 1
    assert "/v1/fleet/" in text
    assert "/v1/control" not in text
    assert "/v1/runtime" not in text
    assert "404" in text
    assert str(server.authority) in text


def test_a_private_key_in_place_of_the_public_one_is_called_that(tmp_path: Path) -> None:
    place = ClientPlace(tmp_path / "client")
    place.prepare()
    with pytest.raises(ConfigError, match=r"private key, which never leaves .* client\.key\.pub"):
        read_public_key(place.private_key)

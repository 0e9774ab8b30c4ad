"""The folders where a federation's server and clients keep keys, secrets and logs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dpsd.federated.flower.identities import (
    client_key,
    hosts_of,
    make_authority,
    make_client_key,
    make_server_certificate,
)


@dataclass(frozen=True)
class ServerPlace:
    """The folder where a server keeps its keys and Flower's state.

    Args:
        folder: the folder, which is made if it does not exist.
    """

    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate of the federation's authority, which invitations hold."""
        return self.folder / "authority.crt"

    @property
    def authority_key(self) -> Path:
        """The private key of the authority."""
        return self.folder / "authority.key"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.folder / "server.key"

    @property
    def secret(self) -> Path:
        """The secret of Flower's server and of the app that runs beside it."""
        return self.folder / "app.secret"

    @property
    def address(self) -> Path:
        """The address on the loopback interface where Flower's server was last started."""
        return self.folder / "address"

    @property
    def last_port(self) -> int | None:
        """The port where Flower's server was last started; ``None`` before it ever was."""
        if not self.address.exists():
            return None
        return int(self.address.read_text(encoding="ascii").rpartition(":")[2])

    @property
    def database(self) -> Path:
        """Flower's database, in which requests and replies are."""
        return self.folder / "state.db"

    def forget_messages(self) -> None:
        """Remove the database of a server that has ended and is not started again.

        Flower marks messages as fetched, and their bytes stay.
        """
        for file in self.folder.glob(f"{self.database.name}*"):
            file.unlink()

    @property
    def log(self) -> Path:
        """What Flower's server prints."""
        return self.folder / "superlink.log"

    def prepare(self, hosts: Iterable[str] = ()) -> None:
        """Make the keys and certificates that are missing.

        Args:
            hosts: the names and addresses under which clients reach the server.

        Raises:
            ConfigError: a name is no name of a host.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.authority.exists():
            make_authority(self.authority, self.authority_key)
        if not self.certificate.exists() or not set(hosts) <= hosts_of(self.certificate):
            make_server_certificate(
                self.certificate,
                self.key,
                authority=self.authority,
                authority_key=self.authority_key,
                hosts=hosts,
            )


@dataclass(frozen=True)
class ClientPlace:
    """The folder where a client keeps its key and what Flower's node prints.

    Args:
        folder: the folder, which is made if it does not exist.
    """

    folder: Path

    @property
    def private_key(self) -> Path:
        """The client's private key."""
        return self.folder / "client.key"

    @property
    def public_key(self) -> Path:
        """The client's public key, which those who run the server register."""
        return self.folder / "client.key.pub"

    @property
    def key(self) -> str:
        """The key by which the server knows the client."""
        return client_key(self.private_key)

    @property
    def log(self) -> Path:
        """What Flower's node prints."""
        return self.folder / "supernode.log"

    def prepare(self) -> None:
        """Make the client's keys if there are none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.private_key.exists():
            make_client_key(self.private_key)

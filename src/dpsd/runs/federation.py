"""The directory of a federation's server, which has no teacher, no ledger and no certificate.

    config.toml           the resolved configuration
    journal.jsonl         who took part, what they replied, and which files are whole
    clients.json          each client: name, mechanism, ε by adjacency, ledger head, last code
    requests/             the round that is being asked, until its releases are stored
    releases/             what the releases of all clients say, one safetensors file per round
    metrics.jsonl, checkpoint.safetensors, student.safetensors, student.json,
    generator.safetensors, images/, report.html    as in every run

A release is float16 ``(N, M, K)``, see :mod:`dpsd.distillation.panel`. Column m belongs to the m-th
client that ever appeared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from dpsd.config.federation import FederationConfig
from dpsd.config.recipe import Recipe
from dpsd.config.transcription import TranscriptionConfig
from dpsd.distillation.releases import RoundReleases, save_releases
from dpsd.errors import RunError
from dpsd.privacy.records.certificate import Certificate
from dpsd.runs.directory import RunDirectory
from dpsd.runs.files import JOURNAL_FILE
from dpsd.runs.folder import SETTINGS, save_queries
from dpsd.runs.journal import Client, Journal
from dpsd.shell import command_line
from dpsd.storage.files import Column, file_hash, write_text
from dpsd.synthesis.queries import Queries

#: The number of queries whose pixels are read at once.
_BLOCK = 4096


class FederationDirectory(RunDirectory):
    """The files of a federation's server.

    Args:
        path: the run directory.
    """

    is_federation = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.journal = self.ledger = Journal(path / JOURNAL_FILE)

    def settings(self) -> FederationConfig:
        """The configuration the federation was started with."""
        return FederationConfig(**self._stored_settings())

    @property
    def recipe(self) -> Recipe:
        return self.settings().recipe

    def config(self) -> TranscriptionConfig:
        self._refuse("has no teacher of its own")

    def certify(self) -> Certificate:
        self._refuse("has no certificate of its own")

    def _refuse(self, lack: str) -> NoReturn:
        listed = command_line("dpsd", "federate", "status", self.path)
        raise RunError(
            f"{self.path} is of a federation's server, which {lack}: its clients have, each on its "
            f"own disk (dpsd certify there). {listed} lists the ε and the ledger that each "
            "stated"
        )

    @property
    def teacher_name(self) -> str:
        count = len(self.clients())
        return f"{count} client" + "s" * (count != 1)

    @property
    def resuming(self) -> str:
        role = "simulate" if self.facts().get("simulated") else "server"
        return command_line("dpsd", "federate", role, "--resume", self.path)

    def begin(self) -> None:
        """Write the first line of the journal, unless it is there."""
        recipe, facts = self.recipe, self.facts()
        self.journal.open(
            {
                "run": facts["run"],
                "rounds": recipe.rounds,
                "sources": recipe.stated_sources,
                "settings": {name: file_hash(self.path / name) for name in SETTINGS},
                "software": {name: version(name) for name in ("dpsd", "torch")},
            }
        )

    def abandon(self) -> None:
        """Remove the files of a federation of which no client has heard yet."""
        if not self.clients():
            self.journal.path.unlink(missing_ok=True)
            self.discard()

    def clients(self) -> list[Client]:
        """All clients, in the order of their columns."""
        return self.journal.clients()

    def write_clients(self) -> None:
        """Write what is known of each client for people to read; the journal is what counts."""
        listed = [asdict(client) for client in self.clients()]
        write_text(self.path / "clients.json", json.dumps(listed, indent=2) + "\n")

    def save_request(self, round_index: int, queries: Queries, candidates: Tensor) -> RoundReleases:
        """Store what a round is about to ask, so that it asks the same if it must ask again.

        Args:
            round_index: the number of the round, from 1.
            queries: the queries.
            candidates: the classes that each client may report, bool ``(N, M, K)``.
        """
        path = self._request_path(round_index)
        path.parent.mkdir(exist_ok=True)
        save_queries(path, round_index, queries, candidates, asked=queries.digest)
        return RoundReleases.load(path, index=round_index)

    def stored_request(self, round_index: int) -> RoundReleases | None:
        """Return what a round was about to ask when it was interrupted, if it was."""
        path = self._request_path(round_index)
        return RoundReleases.load(path, index=round_index) if path.exists() else None

    def is_asking(self, round_index: int) -> bool:
        """Whether a round is being asked, or was when the server was stopped."""
        return self._request_path(round_index).exists()

    def store(self, request: RoundReleases, release: Tensor) -> RoundReleases:
        """Store what the clients' releases say of a request, float16 ``(N, M, K)``, and commit it.

        Raises:
            WriteError: the disk is full, or the directory cannot be written to.
        """
        assert request.asked is not None  # as save_request stores it
        path = self.releases_path(request.index)
        save_releases(
            path,
            index=request.index,
            queries=Column(torch.uint8, tuple(request.queries.shape), _blocks(request)),
            prior=request.prior,
            predicted=request.predicted,
            source=request.source,
            release=release,
            asked=request.asked,
        )
        self.journal.commit(round_index=request.index, sha256=file_hash(path))
        self._request_path(request.index).unlink(missing_ok=True)
        return RoundReleases.load(path, index=request.index)

    def remove_unfinished(self) -> None:
        super().remove_unfinished()
        for path in (self.path / "requests").glob("*.safetensors"):
            if (self.path / "releases" / path.name).exists():
                path.unlink()

    def _request_path(self, round_index: int) -> Path:
        return self.path / "requests" / self.releases_path(round_index).name


def _blocks(request: RoundReleases) -> Iterator[Tensor]:
    return (request.images(rows) for rows in torch.split(torch.arange(len(request)), _BLOCK))

"""The files of a run: settings, ledger, releases and metrics."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dpsd.config.base import Settings, read_toml, to_toml
from dpsd.config.objects import given_as_objects
from dpsd.config.recipe import Recipe
from dpsd.config.transcription import TranscriptionConfig
from dpsd.distillation.releases import RoundReleases, save_releases
from dpsd.errors import DiskFullError, RunError, TeacherError, reason, unwritable
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.ledger import Ledger
from dpsd.runs.files import CONFIG_FILE, check_new, check_run
from dpsd.shell import command_line
from dpsd.storage.files import UNFINISHED, Column, file_hash, read_json, write_text
from dpsd.storage.locks import Hold, exclusively, is_held_here
from dpsd.synthesis.queries import Queries, Spool
from dpsd.teachers.backbones import FEATURES_FILES, Backbone, kept_backbone
from dpsd.teachers.class_names import checked_class_names
from dpsd.teachers.record import checked_statement

#: The settings that a run was started with, and the facts needed to read it back; both are final.
SETTINGS = (CONFIG_FILE, "student.json")


class RunFolder:
    """The paths of a run, with methods that read and write its files.

    Args:
        path: the run directory.
    """

    #: Whether this is the directory of a federation's server, which has no teacher.
    is_federation: ClassVar[bool] = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(path / "ledger.jsonl")

    @classmethod
    def create(
        cls,
        path: Path,
        config: Settings,
        facts: Mapping[str, Any],
        *,
        features: Backbone | None = None,
    ) -> Self:
        """Start a run in an empty or new directory.

        Args:
            path: the run directory.
            config: the resolved configuration.
            facts: what else is needed to read the run back: shapes, models' names, fingerprints.
            features: the backbone that the student is linear on, which the run keeps.

        Raises:
            RunError: the directory is not empty, or it cannot be created.
        """
        check_new(path)
        try:
            (path / "releases").mkdir(parents=True)
        except OSError as error:
            raise unwritable(
                error, f"{path} cannot be created", mend="give another --out", kind=RunError
            ) from None
        try:
            if features is not None:
                features.save(path)
            write_text(path / "student.json", json.dumps(dict(facts), indent=2) + "\n")
            write_text(path / CONFIG_FILE, to_toml(config))
        except RunError:
            cls(path)._remove_settings()
            raise
        return cls(path)

    def discard(self) -> None:
        """Remove the files of a run that never began, unless another process holds it."""
        with suppress(OSError, RunError), self.held():
            if not self.ledger.is_begun():
                self._remove_settings()

    def held(self) -> AbstractContextManager[Hold]:
        """Lock the run for this process, by its ledger, the file that exists as long as the run."""
        return exclusively(self.ledger.path, name=self.path.resolve())

    def is_executed(self) -> bool | None:
        """Return whether a process executes the run; ``None`` if that cannot be known from here."""
        return is_held_here(self.ledger.path)

    def _remove_settings(self) -> None:
        """Remove the settings, as half a run can neither be continued nor started again."""
        for name in (*SETTINGS, *FEATURES_FILES):
            (self.path / name).unlink(missing_ok=True)
        (self.path / "releases").rmdir()

    def require_space(self, needed: int) -> None:
        """Make sure that this many bytes are free on the run's disk.

        Raises:
            DiskFullError: fewer bytes are free.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise DiskFullError(
                f"{self.path}: a round's queries need {needed / 1e9:.1f} GB, but only "
                f"{free / 1e9:.1f} GB are free; make space before the teacher is asked"
            )

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing run.

        Raises:
            RunError: there is no run, it contains links, or its settings were changed since it
                began.
        """
        path = Path(path)
        check_run(path)
        # A run writes into its directory alone, so links are refused; reading a pipe might not end.
        for part in path.rglob("*"):
            try:
                mode = part.lstat().st_mode
            except FileNotFoundError:
                continue  # a temporary file of a run in progress, renamed in the meantime
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "symbolic link" if stat.S_ISLNK(mode) else "special file"
                raise RunError(
                    f"{part} is a {kind}, which a run may not contain: put back the file itself"
                )
        run = cls(path)
        # Checked before anything is built from settings that somebody may have changed.
        if run.ledger.is_begun():
            run._check_settings()
        return run

    def config(self) -> TranscriptionConfig:
        """The configuration the run was started with."""
        return TranscriptionConfig(**self._stored_settings())

    def _stored_settings(self) -> dict[str, Any]:
        """The settings on disk; runs of versions that had no cold start go on without one."""
        return {"cold_start": False} | read_toml(self.path / CONFIG_FILE)

    @property
    def recipe(self) -> Recipe:
        """How the run is carried out."""
        return self.config().recipe

    @property
    def objects(self) -> tuple[str, ...]:
        """What the run was given as objects in Python, so that no command can make it again."""
        return given_as_objects(self.config())

    @property
    def resuming(self) -> str:
        """The command that continues the run; the call, if it needs objects that no command has."""
        if not (objects := self.objects):
            return command_line("dpsd", "transcribe", "--resume", self.path)
        again = ["teacher", *(f"{name}={name}" for name in objects if name != "teacher")]
        return f"dpsd.resume({str(self.path)!r}, {', '.join(again)}) in Python"

    def facts(self) -> dict[str, Any]:
        """The content of ``student.json``.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self.path / "student.json"
        facts = read_json(path)
        try:
            names = [facts[name] for name in ("run", "student", "generator")]
            sizes = [*facts["input_shape"], facts["num_classes"]]
            if not all(isinstance(name, str) for name in names):
                raise TypeError("a name is not a string")
            if len(sizes) != 4 or not all(type(size) is int and size > 0 for size in sizes):
                raise ValueError("input_shape or num_classes is not a valid size")
            for stated in facts.get("features", {}).values():
                checked_statement(stated)
            if "class_names" in facts:
                checked_class_names(facts["class_names"], num_classes=facts["num_classes"])
        except (AttributeError, KeyError, TypeError, ValueError, TeacherError) as error:
            raise RunError(f"{path} is damaged: {error}") from None
        return facts

    def features(self) -> Backbone | None:
        """The frozen public backbone that the student is linear on; ``None`` if it has none.

        Raises:
            TeacherError: the run's copy of it is missing or damaged, or is another.
        """
        facts = self.facts()
        stated = facts.get("features", {}).get("student")
        channels, height, width = facts["input_shape"]
        shape = (channels, height, width)
        return None if stated is None else kept_backbone(self.path, stated, input_shape=shape)

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of the labels; ``None`` if none were given."""
        stated = self.facts().get("class_names")
        return None if stated is None else tuple(stated)

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        return self.path.resolve().name

    @property
    def teacher_name(self) -> str:
        """The name of the teacher's file, directory or factory, without where it is kept."""
        return re.split(r"[/\\]", self.config().teacher.teacher.rstrip("/\\"))[-1]

    @property
    def identity(self) -> str:
        """The identity that distinguishes this run from others of the same teacher."""
        return str(self.facts()["run"])

    def open_ledger(self, *, earlier: Mapping[str, Any] | None) -> None:
        """Open the ledger with a description of this run, unless that has been done.

        Args:
            earlier: what the run's teacher had spent before; ``None`` if that is not on record.
        """
        if self.ledger.is_begun():
            return
        config, facts = self.config(), self.facts()
        self.ledger.open(
            {
                "run": facts["run"],
                "target": config.privacy.budget().to_dict(),
                "rounds": config.recipe.rounds,
                "sources": config.recipe.stated_sources,
                "teacher": facts["teacher"],
                "members": facts["members"],
                "disjoint_data": facts["disjoint_data"],
                # Taken from the run's facts, which lack it if an earlier version wrote them.
                "dealt_by": facts.get("dealt_by"),
                "distinct_images": facts.get("distinct_images", False),
                # Left out if there are none, as in runs of earlier versions.
                **({"class_names": names} if (names := facts.get("class_names")) else {}),
                **({"features": features} if (features := facts.get("features")) else {}),
                "settings": {name: file_hash(self.path / name) for name in SETTINGS},
                "software": {name: version(name) for name in ("dpsd", "torch", "dp-accounting")},
                "earlier": earlier,
            }
        )

    def reservations(self) -> list[dict[str, Any]]:
        """The run's reservations as budgets record them, with the run's identity."""
        if not self.ledger.is_begun():
            return []
        return [{**entry, "run": self.identity} for entry in self.ledger.reservations()]

    def as_recorded(self, mechanism: Mechanism) -> Mechanism:
        """Return a mechanism with exactly the noise level that the ledger records.

        Raises:
            RunError: the mechanism is not the run's, as happens if that was given as an object.
        """
        reservations = self.ledger.reservations() if self.ledger.is_begun() else []
        if not reservations:
            return mechanism
        recorded = reservations[0]["mechanism"]
        try:
            restored = mechanism.with_level(recorded)
            is_same = restored.parameters() == recorded
        except (KeyError, ValueError):
            is_same = False
        if not is_same:
            raise RunError(
                f"ledger {self.ledger.path} records the mechanism {recorded}, which the run's "
                "settings do not produce: a run with a custom mechanism object cannot be resumed"
            )
        return restored

    def releases_path(self, round_index: int) -> Path:
        """The path of a round's releases."""
        return self.path / "releases" / f"round-{round_index:04d}.safetensors"

    def stored_releases(self, round_index: int, *, may_commit: bool = True) -> RoundReleases | None:
        """Return a round's releases if the round was answered before, else ``None``.

        Args:
            round_index: the number of the round, from 1.
            may_commit: whether to add a commit line that a crash prevented, which only the process
                that holds the run may do; for others, such a round does not exist yet.

        Raises:
            RunError: the releases are damaged, or are not those that were committed.
        """
        path = self.releases_path(round_index)
        if not path.exists():
            return None
        recorded = self.ledger.committed(round_index)
        if recorded is None and not may_commit:
            return None
        if recorded is None:
            # A crash came before the commit. The file is complete, as it was renamed into place.
            self.ledger.commit(round_index=round_index, sha256=file_hash(path))
        elif recorded != file_hash(path):
            name = self.ledger.name
            raise RunError(f"{path} is not what the run's {name} names; it was changed or damaged")
        return RoundReleases.load(path, index=round_index)

    def store_releases(
        self, round_index: int, queries: Queries, release: Tensor, *, asked: Tensor
    ) -> RoundReleases:
        """Store a round, commit it in the ledger, and return it memory-mapped from disk.

        Args:
            round_index: the number of the round, from 1.
            queries: the queries that were answered.
            release: the mechanism's releases, ``(N, …)``.
            asked: the digests of all images that were asked, int64 ``(M,)``.

        Raises:
            WriteError: the disk is full, or the directory cannot be written to.
        """
        path = self.releases_path(round_index)
        save_queries(path, round_index, queries, release, asked=asked)
        self.ledger.commit(round_index=round_index, sha256=file_hash(path))
        return RoundReleases.load(path, index=round_index)

    def spool(self, shape: Sequence[int]) -> Spool:
        """A spool on the run's disk, which holds images of shape ``(C, H, W)`` until stored."""
        return Spool(self.path / "releases", shape)

    def remove_unfinished(self) -> None:
        """Remove half-written files that a crash left; only the run's own process may do so."""
        for path in self.path.rglob(f".*{UNFINISHED}"):
            path.unlink()

    def _check_settings(self) -> None:
        """Refuse settings that were changed since the run began, as they would change its ε."""
        recorded = self.ledger.opening()["settings"]
        for name in SETTINGS:
            if file_hash(self.path / name) != recorded.get(name):
                raise RunError(
                    f"{self.ledger.line(1)}: {self.path / name} was changed since the run began; "
                    "put back what it was, or start a new run"
                )

    def is_finished(self) -> bool:
        """Whether the ledger says that the run is finished."""
        return bool(self.ledger.ending())

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``; a crash never leaves half a line."""
        lines = [line for line in self.metrics() if line["round"] != metrics["round"]]
        text = "".join(json.dumps(line) + "\n" for line in [*lines, dict(metrics)])
        write_text(self.path / "metrics.jsonl", text)

    def metrics(self) -> list[dict[str, Any]]:
        """The latest line of each round, in order."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            latest = {line["round"]: line for line in lines}
            return [_without_parts(line) for _, line in sorted(latest.items())]
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise RunError(f"{path} cannot be read: {reason(error)}") from None


def _without_parts(metrics: dict[str, Any]) -> dict[str, Any]:
    """Sum up the seconds of a round's phases, which an earlier version may have recorded."""
    seconds = metrics.get("seconds")
    if not isinstance(seconds, dict):
        return metrics
    return {**metrics, "seconds": round(sum(seconds.values()))}


def save_queries(
    path: Path, round_index: int, queries: Queries, release: Tensor, *, asked: Tensor
) -> None:
    """Write a round's file from queries that are spooled; see :func:`.save_releases`."""
    save_releases(
        path,
        index=round_index,
        queries=Column(torch.uint8, (len(queries), *queries.spool.shape), queries.blocks()),
        prior=queries.prior,
        predicted=queries.predicted,
        source=queries.source,
        release=release,
        asked=asked,
    )

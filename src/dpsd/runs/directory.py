"""The run directory: everything a transcription leaves behind, and never a pickle.

    config.toml           the resolved configuration
    ledger.jsonl          what was asked, written down before it was answered
    releases/             the releases, a safetensors file a round
    checkpoint.safetensors  student and generator after the last finished round
    student.safetensors, student.json, generator.safetensors
    metrics.jsonl         one line a round
    certificate.json
    images/               some of the generator's images after each round, and all on one sheet
    report.html           all that in one page

Nothing here depends on a raw answer except through a release.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from dpsd.config.base import read_toml, to_toml
from dpsd.config.transcription import TranscriptionConfig
from dpsd.distillation.releases import RoundReleases, check_asked_once, save_releases
from dpsd.errors import RunError, WriteError
from dpsd.images.contact_sheet import image_row, save_image, stack_rows
from dpsd.images.names import Shape
from dpsd.models import build_classifier, build_generator
from dpsd.privacy.mechanisms import Mechanism
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.certificate import Certificate, certify
from dpsd.privacy.records.ledger import Ledger
from dpsd.runs.files import CONFIG_FILE, check_run
from dpsd.storage.files import UNFINISHED, Column, save_tensors, write_text
from dpsd.storage.locks import Hold, exclusively
from dpsd.synthesis.distinct import AskedImages
from dpsd.synthesis.queries import Queries, Spool
from dpsd.teachers import Teacher

#: What a run was started with, and what reading it back needs: neither changes again.
_SETTINGS = (CONFIG_FILE, "student.json")

#: Rounds that the generator's contact sheet shows, at most.
_SHEET_ROWS = 30


class RunDirectory:
    """Paths of a run, and reading and writing what is in them.

    Args:
        path: of the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(path / "ledger.jsonl")

    @classmethod
    def create(
        cls, path: Path, config: TranscriptionConfig, facts: Mapping[str, Any]
    ) -> RunDirectory:
        """Start a run in an empty or new directory.

        Args:
            path: of the directory.
            config: resolved.
            facts: what reading the run back needs besides: shapes, class names, fingerprints.

        Raises:
            RunError: the directory holds something already, or cannot be made.
        """
        try:
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is a file, and a run is a directory: give another --out")
            if path.exists() and any(path.iterdir()):
                is_run = (path / CONFIG_FILE).exists()
                mend = f"Continue that run with --resume {path}, or give" if is_run else "Give"
                raise RunError(f"{path} already holds something. {mend} another --out")
            (path / "releases").mkdir(parents=True)
        except OSError as error:
            raise RunError(f"{path} cannot be made: {error}") from None
        try:
            write_text(path / "student.json", json.dumps(dict(facts), indent=2) + "\n")
            write_text(path / CONFIG_FILE, to_toml(config))
        except RunError:
            cls(path)._remove_settings()
            raise
        return cls(path)

    def discard(self) -> None:
        """Take back a run that never began; one that another process holds stays."""
        with suppress(OSError, RunError), self.held():
            if not self.ledger.is_begun():
                self._remove_settings()

    def held(self) -> AbstractContextManager[Hold]:
        """Hold the run for this process; its ledger is the file that lasts as long as it does."""
        return exclusively(self.ledger.path, name=self.path.resolve())

    def _remove_settings(self) -> None:
        """Half a run can neither be continued nor started again: leave nothing."""
        for name in _SETTINGS:
            (self.path / name).unlink(missing_ok=True)
        (self.path / "releases").rmdir()

    def require_space(self, needed: int) -> None:
        """Make sure of so many bytes on the run's disk.

        Raises:
            WriteError: there are fewer.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise WriteError(
                f"{self.path}: {needed / 1e9:.1f} GB are needed for a round's queries, and "
                f"{free / 1e9:.1f} GB are free; make space before the teacher is asked"
            )

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """An existing run.

        Raises:
            RunError: there is none, it holds links, or its settings are not those it began with.
        """
        path = Path(path)
        check_run(path)
        # What a run writes goes into it, and nowhere that a link may lead; a pipe never ends.
        for part in path.rglob("*"):
            try:
                mode = part.lstat().st_mode
            except FileNotFoundError:
                continue  # of a run that goes on: written under another name, and renamed since
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "symbolic link" if stat.S_ISLNK(mode) else "special file"
                raise RunError(f"{part} is a {kind}, and a run has none: put back the file itself")
        run = cls(path)
        # Before anything is built from settings that somebody may have changed.
        if run.ledger.is_begun():
            run._check_settings()
        return run

    def config(self) -> TranscriptionConfig:
        """The configuration the run was started with."""
        return TranscriptionConfig(**read_toml(self.path / CONFIG_FILE))

    def facts(self) -> dict[str, Any]:
        """What ``student.json`` says.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.path / "student.json"
        facts = read_json(path)
        try:
            names = [facts[name] for name in ("run", "student", "generator")]
            sizes = [*facts["input_shape"], facts["num_classes"]]
            if not all(isinstance(name, str) for name in names):
                raise TypeError("a name is no text")
            if len(sizes) != 4 or not all(type(size) is int and size > 0 for size in sizes):
                raise ValueError("input_shape or num_classes is no size")
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}") from None
        return facts

    @property
    def identity(self) -> str:
        """What tells this run from others of the same teacher."""
        return str(self.facts()["run"])

    def open_ledger(self, teacher: Teacher, *, budget: Accounts | None) -> None:
        """Record what run this is, and what its teacher spent before it, the first time."""
        if self.ledger.is_begun():
            return
        config, facts = self.config(), self.facts()
        self.ledger.open(
            {
                "run": facts["run"],
                "target": config.budget().to_dict(),
                "rounds": config.rounds,
                "sources": list(config.sources),
                "teacher": teacher.fingerprint,
                "members": teacher.members,
                "disjoint_data": teacher.is_disjoint,
                # As the run's facts have it: those of an earlier version do not.
                "dealt_by": facts.get("dealt_by"),
                "distinct_images": facts.get("distinct_images", False),
                "settings": {name: file_hash(self.path / name) for name in _SETTINGS},
                "software": {name: version(name) for name in ("dpsd", "torch", "dp-accounting")},
                "earlier": None if budget is None else budget.history(delta=config.delta),
            }
        )

    def reservations(self) -> list[dict[str, Any]]:
        """What the run asked, as budgets have it: with its identity."""
        if not self.ledger.is_begun():
            return []
        return [{**entry, "run": self.identity} for entry in self.ledger.reservations()]

    def as_recorded(self, mechanism: Mechanism) -> Mechanism:
        """A mechanism with the noise that the ledger records, to the last bit.

        Raises:
            RunError: it is another mechanism than the run's, as one that was given as an object is.
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
                "settings do not make: a run whose mechanism was given as an object of one's own "
                "cannot be resumed"
            )
        return restored

    def releases_path(self, round_index: int) -> Path:
        """Where a round's releases are."""
        return self.path / "releases" / f"round-{round_index:04d}.safetensors"

    def stored_releases(self, round_index: int, *, may_commit: bool = True) -> RoundReleases | None:
        """A round's releases, if it was answered before.

        Args:
            round_index: from 1.
            may_commit: whether to make up for a commitment that a crash prevented, as who holds the
                run may; for others, such a round is not there yet.

        Raises:
            RunError: they are not what was committed, or damaged.
        """
        path = self.releases_path(round_index)
        if not path.exists():
            return None
        recorded = self.ledger.committed(round_index)
        if recorded is None and not may_commit:
            return None
        if recorded is None:
            # A crash came between the two: the file is whole, as it was renamed into place.
            self.ledger.commit(round_index=round_index, sha256=file_hash(path))
        elif recorded != file_hash(path):
            raise RunError(f"{path} is not what the run's ledger names; it was changed or damaged")
        return RoundReleases.load(path, index=round_index)

    def store_releases(
        self, round_index: int, queries: Queries, release: Tensor, *, asked: Tensor
    ) -> RoundReleases:
        """Store a round, commit it in the ledger, and return it as mapped from disk.

        Args:
            round_index: from 1.
            queries: those that were answered.
            release: the mechanism's, ``(N, …)``.
            asked: digests of all images that were asked, int64 ``(M,)``.

        Raises:
            WriteError: the disk is full, or the place cannot be written to.
        """
        path = self.releases_path(round_index)
        shape = (len(queries), *queries.spool.shape)
        save_releases(
            path,
            index=round_index,
            queries=Column(torch.uint8, shape, queries.blocks()),
            prior=queries.prior,
            predicted=queries.predicted,
            source=queries.source,
            release=release,
            asked=asked,
        )
        self.ledger.commit(round_index=round_index, sha256=file_hash(path))
        return RoundReleases.load(path, index=round_index)

    def spool(self, shape: Sequence[int]) -> Spool:
        """A place on the run's disk for images of a shape ``(C, H, W)`` until they are stored."""
        return Spool(self.path / "releases", shape)

    def remove_unfinished(self) -> None:
        """Remove what a crash left of files that were being written; for who plays the run."""
        for path in self.path.rglob(f".*{UNFINISHED}"):
            path.unlink()

    def save_checkpoint(
        self, round_index: int, *, student: nn.Module, generator: nn.Module, shares: list[float]
    ) -> None:
        """Store both models after a round, whole or not at all."""
        tensors = {f"student.{name}": tensor for name, tensor in student.state_dict().items()}
        tensors |= {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
        save_tensors(
            self._checkpoint,
            tensors,
            # One entry: safetensors writes several in an order that differs from run to run.
            metadata={"progress": json.dumps({"round": round_index, "shares": shares})},
        )

    def load_checkpoint(
        self, *, student: nn.Module, generator: nn.Module
    ) -> tuple[int, list[float] | None]:
        """Restore both models; returns the finished rounds and the sources' shares."""
        path = self._checkpoint
        if not path.exists():
            return 0, None
        try:
            with safe_open(path, framework="pt") as file:
                progress = json.loads(file.metadata()["progress"])
            self._fill_from_checkpoint(student=student, generator=generator)
            return int(progress["round"]), progress["shares"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"checkpoint {path} cannot be read: {_first_line(error)}") from None

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def _fill_from_checkpoint(self, **modules: nn.Module) -> None:
        tensors = load_file(self._checkpoint)
        for prefix, module in modules.items():
            own = {
                name.removeprefix(f"{prefix}."): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{prefix}.")
            }
            module.load_state_dict(own)

    def save_samples(self, round_index: int, images: Tensor) -> None:
        """Store some of the generator's images after a round, uint8 ``(n, C, H, W)``."""
        self._images.mkdir(exist_ok=True)
        save_image(image_row(images), self._images / f"round-{round_index:04d}.png")

    @property
    def generator_sheet_path(self) -> Path:
        """The contact sheet of the generator's images, one row a round."""
        return self._images / "generator.png"

    @property
    def _images(self) -> Path:
        return self.path / "images"

    def _save_generator_sheet(self) -> None:
        files = sorted(self._images.glob("round-*.png"))
        # A long run is shown by some of its rounds, the last among them.
        step = 1 + len(files) // _SHEET_ROWS
        files = files[::-step][::-1]
        if files:
            rows = [Image.open(file) for file in files]
            labels = [f"round {int(file.stem.removeprefix('round-'))}" for file in files]
            save_image(stack_rows(rows, labels=labels), self.generator_sheet_path)

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``; a crash leaves no half of one."""
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
            raise RunError(f"{path} cannot be read: {error}") from None

    def finish(self, *, student: nn.Module, generator: nn.Module) -> Certificate:
        """Write the models and the certificate."""
        save_tensors(self.path / "student.safetensors", student.state_dict())
        save_tensors(self.path / "generator.safetensors", generator.state_dict())
        self._save_generator_sheet()
        self.ledger.finish(
            student=file_hash(self.path / "student.safetensors"),
            generator=file_hash(self.path / "generator.safetensors"),
        )
        certificate = self.certify()
        certificate.save(self.path / "certificate.json")
        return certificate

    def certify(self) -> Certificate:
        """Compute the certificate from what was recorded, after checking that it is all there.

        Raises:
            RunError: the ledger, the releases and the models do not belong together.
        """
        self._check_against_ledger()
        self._check_opening()
        finished = self.ledger.entries()[-1]["student"] if self.is_finished() else ""
        return certify(self.ledger, student=finished)

    def _check_settings(self) -> None:
        """Refuse settings that were changed since the run began: its ε would be another."""
        recorded = self.ledger.opening()["settings"]
        for name in _SETTINGS:
            if file_hash(self.path / name) != recorded.get(name):
                raise RunError(
                    f"{self.ledger.line(1)}: {self.path / name} was changed since the run began; "
                    "put back what it was, or start a new run"
                )

    def _check_opening(self) -> None:
        """Hold what the ledger says of the run against its settings, and costs to mechanisms."""
        opening, config, facts = self.ledger.opening(), self.config(), self.facts()
        # An earlier dpsd said nothing of distinct images, as its runs asked some again.
        distinct = [part.get("distinct_images", False) for part in (opening, facts)]
        for name, said, settings in (
            ("target", opening["target"], config.budget().to_dict()),
            ("rounds", opening["rounds"], config.rounds),
            ("sources", opening["sources"], list(config.sources)),
            ("run", opening.get("run"), facts["run"]),
            ("members", opening.get("members"), facts.get("members")),
            ("disjoint_data", opening.get("disjoint_data"), facts.get("disjoint_data")),
            ("dealt_by", opening.get("dealt_by"), facts.get("dealt_by")),
            ("teacher", opening.get("teacher"), facts.get("teacher")),
            ("distinct_images", *distinct),
        ):
            if said != settings:
                raise RunError(
                    f"{self.ledger.line(1)}: says that {name} is {said!r}, and the run's settings "
                    f"that it is {settings!r}"
                )
        for number, entry in enumerate(self.ledger.entries(), start=1):
            if entry["entry"] == "reserve" and entry["teacher"] != opening.get("teacher"):
                raise RunError(f"{self.ledger.line(number)}: another teacher than the run's")
        mechanism = config.mechanism(members=int(facts["members"]))
        if int(facts["members"]) > 1:
            mechanism = mechanism.for_members(int(facts["members"]))
        first = self.ledger.reservations()[:1]
        try:
            made = mechanism.with_level(first[0]["mechanism"]) if first else None
        except (KeyError, ValueError):
            made = None
        # A mechanism of the user's own is not made by settings, and its cost is its author's word.
        if made is not None and made.parameters() == first[0]["mechanism"]:
            spending = self.ledger.spending()
            if (made.event(), made.mean_event()) != (spending.event, spending.mean_event):
                raise RunError(
                    f"ledger {self.ledger.path}: a cost that its mechanism does not have"
                )

    def _check_against_ledger(self) -> None:
        reserved: dict[int, int] = {}
        committed: set[int] = set()
        rounds = 0
        entries = self.ledger.entries()
        is_distinct = bool(entries) and entries[0].get("distinct_images") is True
        asked = AskedImages() if is_distinct else None
        for number, entry in enumerate(entries, start=1):
            where = f"ledger {self.ledger.path}, line {number}"
            if entry["entry"] == "reserve":
                reserved[entry["round"]] = entry["answers"]
            elif entry["entry"] == "commit":
                self._check_releases(entry, reserved, asked, where=where)
                committed.add(entry["round"])
            elif entry["entry"] == "open":
                rounds = entry["rounds"]
            else:
                # One by one, as a forged ledger may speak of a trillion rounds.
                missing = next((i for i in range(1, rounds + 1) if i not in committed), None)
                if missing is not None:
                    raise RunError(f"{where}: finished, but round {missing} was never committed")
        for path in sorted((self.path / "releases").glob("*.safetensors")):
            if path not in map(self.releases_path, committed):
                raise RunError(f"{path} is in no line of ledger {self.ledger.path}")
        for model in ("student", "generator"):
            self._check_model(model)

    def is_finished(self) -> bool:
        """Whether the ledger says that the run came to its end."""
        return self.ledger.is_begun() and self.ledger.entries()[-1]["entry"] == "finish"

    def _check_model(self, model: str) -> None:
        """Refuse a model that is not the one that a finished run's ledger names."""
        if not self.is_finished():
            return
        path, entries = self.path / f"{model}.safetensors", self.ledger.entries()
        if not path.exists() or file_hash(path) != entries[-1][model]:
            raise RunError(
                f"{path} is not the {model} that the run's ledger names (line {len(entries)}): "
                "it was changed, exchanged or lost"
            )

    def _check_releases(
        self,
        entry: Mapping[str, Any],
        reserved: Mapping[int, int],
        asked: AskedImages | None,
        *,
        where: str,
    ) -> None:
        """Hold a round's file against the ledger; ``asked`` is what the rounds before it asked."""
        path = self.releases_path(entry["round"])
        if not path.exists() or file_hash(path) != entry["sha256"]:
            raise RunError(f"{where}: {path} is not what was committed; it was changed or lost")
        releases = RoundReleases.load(path, index=entry["round"])
        answers = reserved.get(entry["round"], 0)
        if len(releases) > answers:
            raise RunError(f"{where}: {path} holds more releases than were reserved")
        if asked is not None:
            check_asked_once(releases, asked, answers=answers)

    def student(self, module: nn.Module | None = None) -> nn.Module:
        """The trained student, of the last finished round while the run is not finished.

        Args:
            module: to fill, if it was no named model.

        Raises:
            RunError: no round is finished, or the file is damaged.
        """
        facts = self.facts()
        built = module or build_classifier(
            facts["student"],
            input_shape=_shape(facts),
            num_classes=int(facts["num_classes"]),
        )
        return self._filled(built, "student")

    def generator(self, module: nn.Module | None = None) -> nn.Module:
        """The trained generator; likewise."""
        facts = self.facts()
        built = module or build_generator(facts["generator"], input_shape=_shape(facts))
        return self._filled(built, "generator")

    def _filled(self, module: nn.Module, name: str) -> nn.Module:
        self._check_model(name)
        path = self.path / f"{name}.safetensors"
        if not path.exists():
            path = self._checkpoint
        if not path.exists():
            raise RunError(
                f"{self.path} has no {name} yet: no round is finished. Continue it with dpsd "
                f"transcribe --resume {self.path}"
            )
        try:
            if path == self._checkpoint:
                self._fill_from_checkpoint(**{name: module})
            else:
                module.load_state_dict(load_file(path))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise RunError(f"{path} does not fit the model: {_first_line(error)}") from None
        return module.eval()


@dataclass(frozen=True)
class Run:
    """A finished transcription.

    Args:
        directory: where everything is.
        student: the trained student, in eval mode; logits from images in [0, 1].
        generator: the trained generator.
        certificate: what privacy was bought.
        metrics: one entry a round.
    """

    directory: RunDirectory
    student: nn.Module = field(repr=False)
    generator: nn.Module = field(repr=False)
    certificate: Certificate = field(repr=False)
    metrics: list[dict[str, Any]] = field(repr=False)


def file_hash(path: Path) -> str:
    """``sha256:`` and the hash of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _shape(facts: Mapping[str, Any]) -> Shape:
    channels, height, width = facts["input_shape"]
    return int(channels), int(height), int(width)


def _without_parts(metrics: dict[str, Any]) -> dict[str, Any]:
    """A round's metrics, where an earlier version may have told the seconds of each phase."""
    seconds = metrics.get("seconds")
    if not isinstance(seconds, dict):
        return metrics
    return {**metrics, "seconds": round(sum(seconds.values()))}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        RunError: it is missing, damaged, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} holds no JSON object")
    return content


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]

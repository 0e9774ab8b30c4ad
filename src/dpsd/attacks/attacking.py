"""Playing the attacks on a run by kind, and not playing again what is known already.

Each kind is a package of :mod:`dpsd.attacks` of its name. It has ``attack``, and its settings, a
dataclass that is called as the kind is, as in ``copies.Copies``, with ``quick()``. Findings are
saved as soon as a kind is done, and a kind keeps what takes long while it runs, so an interruption
loses little.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from types import ModuleType
from typing import Any

from torch import nn

from dpsd.attacks.inversion.attacked import attacked
from dpsd.attacks.inversion.public import content_key
from dpsd.attacks.names import INVERSION
from dpsd.attacks.spent import timed
from dpsd.attacks.target import Progress, Silent, Target
from dpsd.datasets import LabelledImages
from dpsd.errors import ConfigError, RunError, Setting
from dpsd.runs.findings import FOLDER, Findings, read_findings
from dpsd.teachers import Teacher


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacking:
    """Attacks on one target, with the same seed.

    Args:
        target: the run, with training and held-out records.
        seed: the seed of every attack.
        is_quick: whether the attacks are made small, to try them out.
        also: further models by name, which are inverted beside the run's own.
        public: what the prior of inversion learns from, as
            :class:`~dpsd.attacks.inversion.Inversion` takes it; printed letters by default.
        asked: the flags of ``dpsd attack`` with which they were asked for, by kind, besides the
            data, the kind, the seed and the size. Findings state them.
    """

    target: Target
    seed: int = 0
    is_quick: bool = False
    also: Mapping[str, nn.Module | Teacher] = field(default_factory=dict)
    public: str | None = None
    asked: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def earlier(self, kind: str) -> Findings | None:
        """Return what an earlier attack found with the same student, data, settings and seed.

        An attack of full size answers a quick one too. Findings that cannot be read, as another
        version of dpsd wrote them, count as none.
        """
        found = self._kept(kind)
        return found if found is not None and self._is_answered_by(found) else None

    def require_no_loss(self, kind: str) -> None:
        """Refuse a quick attack that would replace what one of full size found.

        Raises:
            ConfigError: it would.
        """
        found = self._kept(kind)
        if self.is_quick and found and not found.is_quick and found.student == self._student:
            raise ConfigError(
                f"findings of {kind} at full size are there, with other records, models, seed or "
                "version, and a quick attack would replace them: leave out ",
                *(Setting("quick"), ", or replace them with ", Setting("again")),
            )

    def plan(self, kind: str) -> str:
        """Return a sentence on what an attack of a kind makes, which may take long."""
        size = "quick, as a trial" if self.is_quick else "at full size"
        return f"{kind}, {size}: {self._settings(kind).plan}. Whatever is finished is kept."

    def play(self, kind: str, *, progress: Progress | None = None) -> Findings:
        """Attack, and save the findings in the run directory.

        Args:
            kind: one of :data:`dpsd.attacks.names.KINDS`.
            progress: what is told of the progress; nothing by default.

        Raises:
            ConfigError: the records do not suffice for the attack.
            RunError: the run lacks something, or its directory cannot be written to.
        """
        folder = self.target.run.path / FOLDER
        folder.mkdir(exist_ok=True)
        settings, attacked_by = self._settings(kind), self._attacked_by(kind)
        stated = [self._student, self.seed, asdict(settings), attacked_by]
        key = hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]
        with timed(folder / f"{kind}-seconds.json", key=key) as seconds:
            found: Findings = _module(kind).attack(
                self.target,
                settings=settings,
                seed=self.seed,
                folder=folder,
                progress=Silent() if progress is None else progress,
                **({"also": self.also} if kind == INVERSION else {}),
            )
        found = replace(
            found,
            seconds=round(seconds()),
            settings={**found.settings, **_in_json(asdict(settings))},
            details={**found.details, "attacked": attacked_by},
            is_quick=self.is_quick,
            asked=tuple(self.asked.get(kind, ())),
        )
        found.save(self.target.run.path)
        return found

    def _kept(self, kind: str) -> Findings | None:
        try:
            found = read_findings(self.target.run.path, [kind])
        except RunError:
            return None
        return found[0] if found else None

    def _is_answered_by(self, found: Findings) -> bool:
        size = self if found.is_quick else replace(self, is_quick=False)
        asked = _in_json(asdict(size._settings(found.kind)))
        known = {name: found.settings.get(name) for name in asked}
        return (
            (self.is_quick or not found.is_quick)
            and (found.student, found.seed) == (self._student, self.seed)
            and known == asked
            and found.details.get("attacked") == self._attacked_by(found.kind)
        )

    def _settings(self, kind: str) -> Any:
        settings = getattr(_module(kind), kind.capitalize())
        chosen = settings.quick() if self.is_quick else settings()
        learns_from = kind == INVERSION and self.public
        return replace(chosen, public=self.public) if learns_from else chosen

    @property
    def _student(self) -> str:
        return str(self.target.run.ledger.ending()["student"])

    def _attacked_by(self, kind: str) -> dict[str, Any]:
        """What a kind's findings depend on besides the student, the settings and the seed."""
        if kind != INVERSION:
            return self._attacked
        further = {"also": self._keys} if self.also else {}
        return self._attacked | further | self._learned_from

    @cached_property
    def _learned_from(self) -> dict[str, str]:
        """A hash of the images in a folder or file, which may have changed under the same name."""
        key = self.public and content_key(self.public, self.target.others.input_shape)
        return {"public": key} if key else {}

    @cached_property
    def _keys(self) -> dict[str, str]:
        """A hash of each further model."""
        shape, execution = self.target.members.input_shape, self.target.execution
        return {
            name: attacked(name, model, shape=shape, execution=execution).key
            for name, model in self.also.items()
        }

    @cached_property
    def _attacked(self) -> dict[str, Any]:
        teacher = self.target.teacher
        return {
            "dpsd": version("dpsd"),  # another one may score otherwise
            "members": _digest(self.target.members),
            "others": _digest(self.target.others),
            "teacher": None if teacher is None else teacher.fingerprint,
        }


def _module(kind: str) -> ModuleType:
    return importlib.import_module(f"dpsd.attacks.{kind}")


def _in_json(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are read from a file, where tuples are lists."""
    found: dict[str, Any] = json.loads(json.dumps(stated))
    return found


def _digest(data: LabelledImages) -> str:
    """Return a hash of records: images, labels, persons and names."""
    digest = hashlib.sha256(str(tuple(data.images.shape)).encode())
    digest.update(data.images.contiguous().numpy().data)
    digest.update(data.labels.contiguous().numpy().data)
    digest.update(json.dumps([data.persons, data.names]).encode())
    return digest.hexdigest()

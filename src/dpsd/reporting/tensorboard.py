"""Writing a run's metrics for TensorBoard; needs the extra ``dpsd[tensorboard]``.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     with TensorBoardObserver(Observer(), Path(folder) / "events") as observer:
...         observer.round_finished({"round": 1, "queries": 300, "student_loss": 1.0})
...     len(list((Path(folder) / "events").iterdir()))
1
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from dpsd.errors import ConfigError
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.targets import Adjacency
from dpsd.runs.observing import Observer

#: What a run knows of its final student only when it is finished.
_AT_THE_END = ("final_probe", "left_out")


class TensorBoardObserver(Observer):
    """An observer that writes metrics and what was spent, and forwards everything to another one.

    Args:
        inner: the other observer.
        folder: the folder for event files, which is created when the first phase begins.

    Raises:
        ConfigError: the extra is not installed.
    """

    def __init__(self, inner: Observer, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError("TensorBoard is not installed: pip install 'dpsd[tensorboard]'")
        self._inner = inner
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> TensorBoardObserver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def phase(self, name: str, *, total: int, round_index: int) -> Callable[[int], None]:
        # Opened before a teacher is asked, as TensorBoard records the time of opening to the
        # microsecond.
        self._open()
        return self._inner.phase(name, total=total, round_index=round_index)

    def phase_finished(self, name: str, *, seconds: float, round_index: int) -> None:
        # Forwarded but not written, as the duration of a teacher's phase may reveal its answers.
        self._inner.phase_finished(name, seconds=seconds, round_index=round_index)

    def notice(self, message: str) -> None:
        self._inner.notice(message)

    def warn(self, message: str) -> None:
        self._inner.warn(message)

    def round_finished(self, metrics: dict[str, Any]) -> None:
        self._write(scalars(metrics), step=metrics["round"])
        self._inner.round_finished(metrics)

    def run_finished(self, metrics: list[dict[str, Any]], certificate: Certificate) -> None:
        # What the last line has got since its round was finished, and what was spent.
        last = metrics[-1]
        found = scalars({name: last[name] for name in _AT_THE_END if name in last})
        spent = {f"epsilon/{kind.value}": certificate.spent.under(kind) for kind in Adjacency}
        self._write(found | spent, step=last["round"])
        self._inner.run_finished(metrics, certificate)

    def _write(self, values: Mapping[str, float], *, step: int) -> None:
        self._open()
        # In whole seconds, as in the run's other files; TensorBoard would use microseconds.
        now = float(int(time.time()))
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, walltime=now)
        self._writer.flush()

    def _open(self) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))  # type: ignore[no-untyped-call, unused-ignore]


def scalars(metrics: Mapping[str, Any], *, prefix: str = "") -> dict[str, float]:
    """Return the numbers in a round's metrics by path; items of lists are numbered.

    >>> scalars({"round": 2, "agreement": {"mean": 0.5}, "label_shares": [0.25, 0.75]})
    {'agreement/mean': 0.5, 'label_shares/0': 0.25, 'label_shares/1': 0.75}
    """
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, list):
            value = {str(number): part for number, part in enumerate(value)}
        if isinstance(value, Mapping):
            found |= scalars(value, prefix=f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "round":
            found[prefix + name] = float(value)
    return found

"""Writing a run's metrics for TensorBoard; needs the extra ``tensorboard``.

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
from dpsd.extras import how_to_install
from dpsd.reporting.tracking import Tracking
from dpsd.runs.observing import Observer


class TensorBoardObserver(Tracking):
    """An observer that writes for TensorBoard, and forwards everything to another one.

    Args:
        inner: the other observer.
        folder: the folder for event files, which is created when the first phase begins.

    Raises:
        ConfigError: the extra is not installed.
    """

    def __init__(self, inner: Observer, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(f"TensorBoard is not installed: {how_to_install('tensorboard')}")
        super().__init__(inner)
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
        return super().phase(name, total=total, round_index=round_index)

    def write(self, values: Mapping[str, float], *, step: int) -> None:
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

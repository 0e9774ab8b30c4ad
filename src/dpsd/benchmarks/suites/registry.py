"""The suites by name.

>>> from pathlib import Path
>>> from dpsd.benchmarks.methods import Task
>>> rows = SUITES["label-sensitive"].rows(Task(data="mnist", teachers=Path("teachers")), 1.0)
>>> [row.method.name for row in rows if row.key.startswith("mnist/1/dpsd")]
['dpsd, many rounds', 'dpsd, one round']
"""

from __future__ import annotations

from collections.abc import Mapping

from dpsd.benchmarks.suites import (
    ablation,
    data_sensitive,
    federated,
    label_sensitive,
    scale,
    sensitivity,
    speed,
    synthetic,
    transfer,
)
from dpsd.benchmarks.suites.suite import Suite

SUITES: Mapping[str, Suite] = {
    "data-sensitive": data_sensitive.SUITE,
    "label-sensitive": label_sensitive.SUITE,
    "transfer": transfer.SUITE,
    "sensitivity": sensitivity.SUITE,
    "ablation": ablation.SUITE,
    "speed": speed.SUITE,
    "scale": scale.SUITE,
    "federated": federated.SUITE,
    "synthetic": synthetic.SUITE,
}

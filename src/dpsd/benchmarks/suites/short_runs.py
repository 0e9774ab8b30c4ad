"""What the suites of many short runs share."""

from __future__ import annotations

from dpsd.benchmarks.suites.suite import Settings

#: What short runs share: long enough to tell good from bad, short enough to be run by the dozen.
SHORT: Settings = {
    "rounds": 3,
    "queries": 12_000,
    "first_queries": 24_000,
    "first_epochs": 4.0,
    "generator_steps": 40,
    "generator_share": 0.6,
    "selection": 1.0,
}


#: Their ε: at 1 they differ more from seed to seed than from one another; at 3, all are at 97 %.
TELLING = 2.0

"""The settings of a recipe whose defaults differ for an ensemble of teachers.

>>> ENSEMBLE_DEFAULTS["rounds"]
1
"""

from __future__ import annotations

from typing import Any

#: The default student for an ensemble: the one that learns most from few answers.
ENSEMBLE_STUDENT = "scattering"

#: The defaults of the recipe that differ for an ensemble. All queries are asked in one round: a
#: student that continues from what it fitted to few noisy answers ends up worse than one that is
#: trained on all of them from the start.
ENSEMBLE_DEFAULTS: dict[str, Any] = {
    "rounds": 1,
    "queries": 12_000,
    "sources": ("noise",),
    "exploration": 0.0,
    "generator_steps": 100,
    "student_steps": 1_500,
    "augment": "shift",
}

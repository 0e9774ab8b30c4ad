"""dpsd: privacy-preserving model transcription.

A trained classifier (the teacher) becomes a fresh one (the student) through privatised answers to
synthetic queries alone::

    import dpsd

    teacher = dpsd.load_teacher("teacher.onnx", input_shape=(1, 28, 28), num_classes=10)
    run = dpsd.transcribe(
        teacher,
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=1.0, delta=1e-5, adjacency="response"),
        out="runs/mnist",
    )
    run.student, run.generator, run.certificate

Names are imported when they are first used, so that ``dpsd --help`` need not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpsd.config import Recipe, TranscriptionConfig
    from dpsd.errors import (
        AnswerError,
        BudgetError,
        ConfigError,
        DataError,
        DpsdError,
        RunError,
        TeacherError,
    )
    from dpsd.privacy.accounting import Adjacency, Budget
    from dpsd.privacy.certificate import Certificate
    from dpsd.privacy.mechanisms import (
        ConfidentVotes,
        Gaussian,
        Mechanism,
        NoisyVotes,
        RandomizedResponse,
        Scaling,
        SummedGradients,
    )
    from dpsd.privacy.randomness import ReproducibleNoise, SystemNoise
    from dpsd.runs import Run, RunDirectory
    from dpsd.starting import resume, transcribe
    from dpsd.teachers import Teacher, load_teacher
    from dpsd.transcription import Observer

__version__ = version("dpsd")

_HOME = {
    "dpsd.config": ("Recipe", "TranscriptionConfig"),
    "dpsd.errors": (
        "AnswerError",
        "BudgetError",
        "ConfigError",
        "DataError",
        "DpsdError",
        "RunError",
        "TeacherError",
    ),
    "dpsd.privacy.accounting": ("Adjacency", "Budget"),
    "dpsd.privacy.certificate": ("Certificate",),
    "dpsd.privacy.mechanisms": (
        "ConfidentVotes",
        "Gaussian",
        "Mechanism",
        "NoisyVotes",
        "RandomizedResponse",
        "Scaling",
        "SummedGradients",
    ),
    "dpsd.privacy.randomness": ("ReproducibleNoise", "SystemNoise"),
    "dpsd.runs": ("Run", "RunDirectory"),
    "dpsd.teachers": ("Teacher", "load_teacher"),
    "dpsd.starting": ("resume", "transcribe"),
    "dpsd.transcription": ("Observer",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Adjacency",
    "AnswerError",
    "Budget",
    "BudgetError",
    "Certificate",
    "ConfidentVotes",
    "ConfigError",
    "DataError",
    "DpsdError",
    "Gaussian",
    "Mechanism",
    "NoisyVotes",
    "Observer",
    "RandomizedResponse",
    "Recipe",
    "ReproducibleNoise",
    "Run",
    "RunDirectory",
    "RunError",
    "Scaling",
    "SummedGradients",
    "SystemNoise",
    "Teacher",
    "TeacherError",
    "TranscriptionConfig",
    "load_teacher",
    "resume",
    "transcribe",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

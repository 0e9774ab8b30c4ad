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
"""

from importlib.metadata import version

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
from dpsd.privacy.mechanisms import Gaussian, Mechanism, RandomizedResponse, Scaling
from dpsd.privacy.randomness import ReproducibleNoise, SystemNoise
from dpsd.runs import Run, RunDirectory
from dpsd.teachers import Teacher, load_teacher
from dpsd.transcription import Observer, resume, transcribe

__version__ = version("dpsd")

__all__ = [
    "Adjacency",
    "AnswerError",
    "Budget",
    "BudgetError",
    "Certificate",
    "ConfigError",
    "DataError",
    "DpsdError",
    "Gaussian",
    "Mechanism",
    "Observer",
    "RandomizedResponse",
    "Recipe",
    "ReproducibleNoise",
    "Run",
    "RunDirectory",
    "RunError",
    "Scaling",
    "SystemNoise",
    "Teacher",
    "TeacherError",
    "TranscriptionConfig",
    "load_teacher",
    "resume",
    "transcribe",
]

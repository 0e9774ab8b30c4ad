from .config.recipe import Recipe
from .config.transcription import TranscriptionConfig
from .errors import (
    AnswerError,
    BudgetError,
    ConfigError,
    DataError,
    DpsdError,
    RunError,
    TeacherError,
)
from .privacy.mechanisms import (
    ConfidentVotes,
    Gaussian,
    Mechanism,
    NoisyVotes,
    RandomizedResponse,
    SummedGradients,
)
from .privacy.parameters import Scaling
from .privacy.randomness import ReproducibleNoise, SystemNoise
from .privacy.records.certificate import Certificate
from .privacy.targets import Adjacency, Budget
from .runs.directory import Run, RunDirectory
from .runs.observing import Observer
from .teachers import ServiceOptions, Teacher, load_teacher
from .transcription.starting import resume, transcribe

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
    "ServiceOptions",
    "SummedGradients",
    "SystemNoise",
    "Teacher",
    "TeacherError",
    "TranscriptionConfig",
    "load_teacher",
    "resume",
    "transcribe",
]

__version__: str

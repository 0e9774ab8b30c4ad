from .address import ServiceOptions
from .base import Teacher
from .callable import CallableTeacher
from .directory import save_teacher
from .ensemble import Committee, EnsembleTeacher
from .exported import ExportedTeacher
from .huggingface import HuggingFaceTeacher
from .loading import TeacherSource, load_teacher
from .module import ModuleTeacher
from .onnx import OnnxTeacher
from .record import TeacherRecord, read_record
from .service import ServiceTeacher

__all__ = [
    "CallableTeacher",
    "Committee",
    "EnsembleTeacher",
    "ExportedTeacher",
    "HuggingFaceTeacher",
    "ModuleTeacher",
    "OnnxTeacher",
    "ServiceOptions",
    "ServiceTeacher",
    "Teacher",
    "TeacherRecord",
    "TeacherSource",
    "load_teacher",
    "read_record",
    "save_teacher",
]

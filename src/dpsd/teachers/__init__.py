"""Teachers: trained classifiers of any make, frozen, query-only, their answers sealed.

:func:`load_teacher` makes a :class:`Teacher` of whatever describes one:

>>> import torch
>>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
>>> teacher = load_teacher(module, input_shape=(1, 8, 8))
>>> teacher.num_classes
3
>>> teacher.ask(torch.rand(2, 1, 8, 8), query_batch=0)
RawAnswers(shape=(2, 3))
"""

from dpsd.teachers.base import Teacher
from dpsd.teachers.callable import CallableTeacher
from dpsd.teachers.directory import TeacherRecord, read_record, save_teacher
from dpsd.teachers.ensemble import Committee, EnsembleTeacher
from dpsd.teachers.exported import ExportedTeacher
from dpsd.teachers.loading import TeacherSource, load_teacher
from dpsd.teachers.module import ModuleTeacher
from dpsd.teachers.onnx import OnnxTeacher

__all__ = [
    "CallableTeacher",
    "Committee",
    "EnsembleTeacher",
    "ExportedTeacher",
    "ModuleTeacher",
    "OnnxTeacher",
    "Teacher",
    "TeacherRecord",
    "TeacherSource",
    "load_teacher",
    "read_record",
    "save_teacher",
]

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

Names are imported when they are first used, so that ``dpsd --help`` need not wait for torch. The
stub beside this file tells type checkers and the loader which module each name comes from.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("dpsd")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

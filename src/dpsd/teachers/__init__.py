"""Teachers: trained classifiers of any kind, frozen and query-only, with sealed answers.

:func:`load_teacher` makes a :class:`Teacher` from anything that describes one:

>>> import torch
>>> from dpsd.teachers import load_teacher
>>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
>>> teacher = load_teacher(module, input_shape=(1, 8, 8))
>>> teacher.num_classes
3
>>> teacher.ask(torch.rand(2, 1, 8, 8), query_batch=0)
RawAnswers(shape=(2, 3))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

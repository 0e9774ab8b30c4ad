"""Labelled images for training teachers and for measuring; nothing else may read them.

A transcription sees none, but for the public images, without labels, that a user gives it
(:mod:`dpsd.datasets.public_images`). Readers know the canonical formats, keep a split in memory as
uint8 pixels, and never unpickle.

>>> from dpsd.datasets import load_dataset
>>> data = load_dataset("digits", "train")
>>> data.images.shape, data.class_names[:3]
(torch.Size([1085, 1, 8, 8]), ('0', '1', '2'))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

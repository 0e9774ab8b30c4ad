"""Labelled images for training teachers and for measuring: nothing else may read them.

A transcription never sees a data set. Readers know the canonical formats, hold a split in memory
as uint8 pixels, and never unpickle.

>>> data = load_dataset("digits", "train")
>>> data.images.shape, data.class_names[:3]
(torch.Size([1085, 1, 8, 8]), ('0', '1', '2'))
"""

from dpsd.datasets.declared import Declared
from dpsd.datasets.fetch import fetch, fetchable_names
from dpsd.datasets.labelled import LabelledImages, Split
from dpsd.datasets.location import data_root
from dpsd.datasets.persons import persons_of
from dpsd.datasets.published import settled_in_full
from dpsd.datasets.registry import dataset_names, load_dataset

__all__ = [
    "Declared",
    "LabelledImages",
    "Split",
    "data_root",
    "dataset_names",
    "fetch",
    "fetchable_names",
    "load_dataset",
    "persons_of",
    "settled_in_full",
]

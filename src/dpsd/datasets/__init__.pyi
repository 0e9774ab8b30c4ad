from .declared import Declared
from .fetch import fetch, fetchable_names
from .labelled import LabelledImages, Split
from .location import data_root
from .persons import persons_of
from .published import settled_in_full
from .registry import dataset_names, load_dataset

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

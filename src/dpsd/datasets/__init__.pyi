from .declared import Declared
from .fetch import fetch, fetchable_names
from .labelled import LabelledImages, Split
from .location import data_root
from .persons import persons_of
from .published import check_dataset, dataset_names, is_folder, settled_in_full
from .registry import load_dataset

__all__ = [
    "Declared",
    "LabelledImages",
    "Split",
    "check_dataset",
    "data_root",
    "dataset_names",
    "fetch",
    "fetchable_names",
    "is_folder",
    "load_dataset",
    "persons_of",
    "settled_in_full",
]

from .declared import Declared
from .fetch import fetch, fetchable_names
from .labelled import LabelledImages, Split
from .location import data_root
from .persons import persons_of
from .published import check_dataset, dataset_names, is_folder, settled_in_full
from .registry import has_validation, load_dataset, load_training

__all__ = [
    "Declared",
    "LabelledImages",
    "Split",
    "check_dataset",
    "data_root",
    "dataset_names",
    "fetch",
    "fetchable_names",
    "has_validation",
    "is_folder",
    "load_dataset",
    "load_training",
    "persons_of",
    "settled_in_full",
]

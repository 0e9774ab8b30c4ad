"""Copies: whether a run's generator returns training records, and what its images are good for.

Finding none is no privacy: a model may leak membership without ever repeating a record ("The DCR
Delusion", arXiv 2505.01524). So nothing here passes or fails.
"""

from __future__ import annotations

from dpsd.attacks.copies.searching import attack
from dpsd.attacks.copies.settings import Copies

__all__ = ["Copies", "attack"]

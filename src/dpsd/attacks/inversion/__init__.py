"""Inversion: what an attacker reconstructs of the classes that a model was trained on.

Four attacks are measured: ``gmi`` and ``plg-mi``, which optimise latents of a GAN of public images
towards a class of a white-box target; ``label-only``, which sees classes alone; and ``prior-free``,
which optimises pixels. That a reconstruction shows a class is no leakage of a record, so how near
reconstructions are to training records is a measure of its own.
"""

from dpsd.attacks.inversion.inverting import attack
from dpsd.attacks.inversion.settings import Inversion

__all__ = ["Inversion", "attack"]

"""Small, named architectures: classifiers for teachers and students, generators for queries.

Every classifier takes images in ``[0, 1]``, ``(N, C, H, W)``, includes its own normalisation,
returns logits and ends in ``nn.Linear``; every generator turns noise into such images.

>>> import torch
>>> from dpsd.models import build_classifier, build_generator
>>> student = build_classifier("cnn", input_shape=(1, 28, 28), num_classes=10, seed=0)
>>> generator = build_generator("dcgan", input_shape=(1, 28, 28), seed=0)
>>> student(generator(torch.randn(4, generator.latent_dim))).shape
torch.Size([4, 10])
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The methods that dpsd is compared with, on the same data, teacher and students.

Each is a :class:`~dpsd.benchmarks.methods.Method`: a frozen dataclass of its settings that makes a
student and says whom its ε protects. None of them can do what a transcription does: most are given
the private training data, ``Pate`` real images of the same distribution, and ``DataFreeLearning``
the inside of the teacher and no privacy.

=============  ================  =========================================  =================
module         method            given                                      its ε protects
=============  ================  =========================================  =================
distillation   Distillation      the teacher and the training images        nothing
data_free      DataFreeLearning  the teacher's gradients                    nothing
private_sgd    PrivateSGD        the training data                          a training record
pate           Pate              many teachers and real public images       a training record
label_privacy  RandomizedLabels  the training images and randomised labels  a record's label
label_privacy  PriorLabels       the same, in two stages                    a record's label
=============  ================  =========================================  =================

Others make synthetic records, which a classifier is then trained on
(:mod:`~dpsd.benchmarks.scoring`). All are given the training data.

====================  ==========  =======================
module                method      its ε protects
====================  ==========  =======================
embedding_generators  DpMerf      a training record
embedding_generators  DpHp        a training record
private_gan           PrivateGan  a record added, removed
====================  ==========  =======================

All noise is drawn from the seed, so that a figure can be repeated: what these methods return is
for measuring, never for release.

>>> from dpsd.benchmarks.baselines.distillation import Distillation
>>> from dpsd.benchmarks.baselines.label_privacy import RandomizedLabels
>>> from dpsd.benchmarks.baselines.private_sgd import PrivateSGD
>>> methods = [Distillation(), PrivateSGD(), RandomizedLabels()]
>>> [method.unit.value for method in methods]
['nothing: not private', 'a training record, added or removed', "a training record's label"]
"""

"""The controls: planted leaks that the attacks must find, and a target in which they must not.

Every attack must invert an unprotected, over-fitted network, as its evaluators see it, more often
than the prior shows the same classes without a target. No attack may find anything in a network
with random weights. And the measure of nearness must say of a model whose gradient leads to its
training records that reconstructions are nearer to them than to held-out records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from dpsd.attacks.inversion.attacked import Attacked, attacked
from dpsd.attacks.inversion.attacker import Attacker
from dpsd.attacks.inversion.evaluators import records_key
from dpsd.attacks.inversion.judging import JUDGED, SPACES, Judge, Judgement
from dpsd.attacks.inversion.planted import OVERFITTING_STEPS, memorising, overfitted, untrained
from dpsd.datasets import LabelledImages
from dpsd.runs.findings import Control

#: The confidence at which something must not be found where there is nothing. It is high, as each
#: attack is tested in two spaces, and a false alarm makes all findings invalid.
_SURE = 0.9999
#: The fewest reconstructions of all classes; with less, not even a planted leak would stand out.
_FEWEST = 100


def planted_controls(
    attacker: Attacker, judge: Judge, inside: LabelledImages, *, attacks: Sequence[str]
) -> tuple[Control, ...]:
    """Attack the planted targets, and return what was found.

    Args:
        attacker: the attacker.
        judge: judges what it makes.
        inside: the training records that reconstructions are compared with.
        attacks: the names of the attacks to be trusted.
    """
    settings, shape = attacker.settings, inside.input_shape
    groups = math.ceil(_FEWEST / (settings.restarts * len(attacker.public.classes)))
    each = max(settings.control_reconstructions, settings.restarts * groups)
    floor = judge.judge(attacker.unguided(each), is_guided=False)

    def planted(name: str, module: nn.Module) -> Attacked:
        return attacked(name, module, shape=shape, execution=attacker.execution)

    leaking = planted("an over-fitted network", _overfitted(attacker, inside))
    empty = planted("an untrained network", untrained(inside, seed=attacker.seed))
    knowing = planted("a memorising model", memorising(inside, seed=attacker.seed))
    found = []
    for name in attacks:
        leak = judge.judge(attacker.attack(leaking, name, each=each))
        found.append(_success(name, leak, floor))
        nothing = judge.judge(attacker.attack(empty, name, each=each), confidence=_SURE)
        found.append(_nothing(name, nothing, classes=len(attacker.public.classes)))
    exact = judge.judge(attacker.attack(knowing, "prior-free", each=each))
    return (*found, _nearness(exact))


def _success(name: str, leak: Judgement, floor: Judgement) -> Control:
    return Control(
        name=f"over-fitted network, {name}",
        found=leak.success.low > floor.success.high,
        sentence=(
            f"An unprotected network was over-fitted to a few records. Most evaluators see the "
            f"intended class in {percent(leak.success.share)} of {leak.success.count:,} of its "
            f"{name} reconstructions (at least {percent(leak.success.low)}), and in "
            f"{percent(floor.success.share)} of unguided images of the prior (at most "
            f"{percent(floor.success.high)})."
        ),
    )


def _nothing(name: str, nothing: Judgement, *, classes: int) -> Control:
    assert nothing.nearer is not None  # reconstructions have it
    says_nothing = nothing.chance > 1 - _SURE and all(
        share.low <= 0.5 <= share.high for share in nothing.nearer.values()
    )
    shares = " and ".join(f"{percent(nothing.nearer[space].share)} in {space}" for space in SPACES)
    return Control(
        name=f"nothing in an untrained network, {name}",
        found=says_nothing,
        sentence=(
            f"A network with random weights knows no record. Most evaluators see the intended "
            f"class in {percent(nothing.success.share)} of {nothing.success.count:,} of its "
            f"{name} reconstructions, which classes given out at random reach with probability "
            f"{nothing.chance:.2g}; {shares} are nearer to a training record than to a held-out "
            f"one. The attack {'finds nothing' if says_nothing else 'finds what is not there'}."
            + (
                f" Of {classes} classes, even success in all of them could be chance, so this "
                "control rests on nearness alone."
            )
            * (1 / math.factorial(classes) > 1 - _SURE)
        ),
    )


def _nearness(exact: Judgement) -> Control:
    assert exact.nearer is not None  # reconstructions have it
    share = exact.nearer[JUDGED]
    return Control(
        name="memorising model, nearer-to-training",
        found=share.low > 0.5,
        sentence=(
            f"The gradient of a model leads to its training records. Of {share.count:,} prior-free "
            f"reconstructions, {percent(share.share)} are nearer in {JUDGED} to a training record "
            f"than to a held-out one, at least {percent(share.low)} with 95% confidence."
        ),
    )


def _overfitted(attacker: Attacker, inside: LabelledImages) -> nn.Module:
    """Return the over-fitted network, which is kept like everything that takes long."""
    module = untrained(inside, seed=attacker.seed)
    facts = {
        "records": records_key(inside),
        "steps": OVERFITTING_STEPS,
        "seed": attacker.seed,
        "device": attacker.execution.device.type,
    }
    module.load_state_dict(
        attacker.shelf.kept(
            "plant",
            facts,
            lambda: overfitted(
                inside, seed=attacker.seed, execution=attacker.execution
            ).state_dict(),
        )
    )
    return module


def percent(share: float) -> str:
    """Return a share in words.

    >>> percent(0.123)
    '12.3%'
    """
    return f"{share:.1%}"

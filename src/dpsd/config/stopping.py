"""The check of ``until``, which stops a run by the agreement on a probe.

>>> check_until(0.01, has_probe=False, is_refused=True, public="scans")
Traceback (most recent call last):
    ...
dpsd.errors.ConfigError: until is 0.01, but probe is none, and nothing else tells how well the \
student does: leave probe none out, and part of public is the probe; or leave until out
"""

from __future__ import annotations

from dpsd.errors import ConfigError, Setting


def check_until(
    until: float | None, *, has_probe: bool, is_refused: bool, public: str | None
) -> None:
    """Refuse to stop by the agreement on a probe that there is not.

    Args:
        until: the improvement below which the run stops; ``None`` if it does not.
        has_probe: whether the run has a probe.
        is_refused: whether the settings say that it has none.
        public: the public images that queries are made from, if any.

    Raises:
        ConfigError: the run is to stop, and has no probe.
    """
    if until is None or has_probe:
        return
    lacks: tuple[str, ...] = ("nothing tells how well the student does without a probe: ",)
    mend: tuple[str, ...] = (
        *("give public images with ", Setting("probe"), " or "),
        *(Setting("public"), ", or leave it out"),
    )
    if is_refused:
        lacks = Setting("probe"), " is none, and nothing else tells how well the student does: "
        mend = "give public images with ", Setting("probe")
        if public is not None:
            mend = "leave ", Setting("probe"), " none out, and part of ", Setting("public")
            mend = (*mend, " is the probe")
        mend = (*mend, "; or leave ", Setting("until"), " out")
    raise ConfigError(Setting("until"), f" is {until:g}, but ", *lacks, *mend)

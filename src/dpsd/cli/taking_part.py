"""Taking part in a federation as ``dpsd federate client`` does, and reporting how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import typer

from dpsd.cli.attending import ClientObserver
from dpsd.cli.console import STATUS, say, shown_warnings
from dpsd.cli.errors import INTERRUPTED
from dpsd.cli.privacy import show_privacy
from dpsd.config.transcription import TranscriptionConfig
from dpsd.errors import ConfigError
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.respondent import Respondent
from dpsd.federated.client.standing import Standing
from dpsd.federated.client.starting import new_respondent
from dpsd.federated.flower.invitations import Invitation
from dpsd.federated.flower.joining import join
from dpsd.federated.flower.places import ClientPlace
from dpsd.privacy.accounting import PrivacySpent, format_epsilon
from dpsd.privacy.mechanisms.shares import FEWEST
from dpsd.privacy.targets import Adjacency
from dpsd.teachers import Teacher


def make_key(folder: Path) -> None:
    """Make a client's key if there is none, and say what to do with it."""
    place = ClientPlace(folder)
    place.prepare()
    say(f"The key is {place.key}")
    say(
        f"Send {place.public_key} to the server's people. When they have registered it, run the "
        "same command again with --invitation, which shows what to compare with them, and then "
        "with --epsilon and --adjacency besides."
    )


def take_part(
    settings: TranscriptionConfig,
    invitation: Invitation,
    *,
    records: Path,
    keys: Path,
    asked: Mapping[str, int],
    trusts: bool,
    quiet: bool,
) -> None:
    """Answer for a client until Ctrl-C.

    Args:
        settings: the teacher, and the privacy that the client demands.
        invitation: what the server's people sent.
        records: the folder of the client's ledger and answers.
        keys: the folder of its key.
        asked: the most ``rounds`` and ``queries`` to answer, if the owner chose them.
        trusts: whether the owner trusts the server to keep sums over clients alone.
        quiet: whether to show warnings, errors and the invitation's fingerprint only.
    """
    plan, sharing = agreed_plan(invitation, asked), agreed_sharing(invitation, trusts=trusts)
    observer = ClientObserver(quiet=quiet)
    with shown_warnings():
        teacher = settings.load_teacher()
        _check_invited(invitation, teacher)
        respondent = new_respondent(
            teacher,
            settings.privacy,
            plan=plan,
            directory=records,
            sharing=sharing,
            federation=invitation.federation,
            observer=observer,
        )
    place = ClientPlace(keys)
    place.prepare()
    STATUS.print(f"the fingerprint of the invitation is {invitation.fingerprint}", soft_wrap=True)
    if not quiet:
        spent = respondent.planned()
        STATUS.print(
            f"this client is {place.key}; it answers at most {plan.answers:,} images for "
            f"{invitation.address!r}, for which ε is {_costs(spent)}, at δ = {spent.delta:g}"
            f"{_against_others(respondent)}\n"
            "connecting; this goes on until the server is there, and after it has stopped, until "
            "Ctrl-C",
            soft_wrap=True,
        )
    try:
        standing = partial(Standing.of, respondent)
        with shown_warnings(observer.warn), observer.attending(invitation.address, standing):
            join(place, invitation, respondent, told=observer.connected)
    except KeyboardInterrupt:
        STATUS.print("interrupted; every answer is kept, and the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if respondent.folder.reservations() and not quiet:
            show_privacy(respondent.certificate())


def _against_others(client: Respondent) -> str:
    """What the whole plan costs against all but a server that is trusted to add up."""
    spent = client.allowance.against_others(client.plan.all_rounds)
    if spent is None:
        return ""
    return f"; against those who see sums alone, as you trust the server, ε is {_costs(spent)}"


def _costs(spent: PrivacySpent) -> str:
    costs = (f"{format_epsilon(spent.under(kind))} under {kind.value!r}" for kind in Adjacency)
    return ", ".join(costs)


def _check_invited(invitation: Invitation, teacher: Teacher) -> None:
    """Refuse an invitation to a federation about other images or classes than the teacher's.

    Raises:
        ConfigError: the invitation states another shape or another number of classes.
    """
    own = {"input_shape": list(teacher.input_shape), "num_classes": teacher.num_classes}
    for name, value in own.items():
        if (stated := invitation.facts.get(name, value)) != value:
            raise ConfigError(
                f"the invitation is to a federation whose {name.replace('_', ' ')} is {stated}, "
                f"and the teacher's is {value}: give a teacher that fits, or another invitation"
            )


#: What a client answers at most.
_ASKED = ("rounds", "queries")
#: The most images that an invitation alone makes a client answer.
_MOST_IMAGES = 1_000_000


def agreed_plan(invitation: Invitation, asked: Mapping[str, int]) -> AnswerPlan:
    """Return the most that a client answers: what its owner chose, or else what it is invited to.

    Args:
        invitation: the invitation, whose facts may state ``rounds`` and ``queries``.
        asked: the most ``rounds`` and ``queries`` to answer, if the owner chose them.

    Raises:
        ConfigError: the invitation does not state what the owner did not choose, or states more
            than a million images in all.
    """
    stated = {name: _fact(invitation, name) for name in _ASKED if name not in asked}
    plan = AnswerPlan(**asked, **stated)
    if stated and plan.answers > _MOST_IMAGES:
        raise ConfigError(
            f"the invitation asks for more than {_MOST_IMAGES:,} images in all: from so many that "
            "look alike, a server could average the noise away. Say with --rounds and --queries "
            "how many you allow"
        )
    return plan


def agreed_sharing(invitation: Invitation, *, trusts: bool) -> int | None:
    """Return the fewest clients that share the noise, where the server is trusted to add up.

    Args:
        invitation: the invitation, whose facts may state ``trusted_aggregator``.
        trusts: whether the client's owner trusts the server to keep sums over clients alone.

    Raises:
        ConfigError: the owner and the invitation say different things.
    """
    if not trusts:
        if "trusted_aggregator" in invitation.facts:
            raise ConfigError(
                "the invitation is to a federation whose server adds up answers, each with a share "
                "of the noise. If you trust those who run it to keep sums alone, say so with "
                "--trusted-aggregator; if not, ask them for a federation without it"
            )
        return None
    if (clients := _fact(invitation, "trusted_aggregator")) < FEWEST:
        raise ConfigError(
            f"the invitation states sums over {clients} clients, and fewer than {FEWEST} hide "
            "nothing: ask for another"
        )
    return clients


def _fact(invitation: Invitation, name: str) -> int:
    """What an invitation states of a number."""
    stated = invitation.facts.get(name)
    if type(stated) is not int or stated < 1:
        mend = "say how many with" if name in _ASKED else "leave out"
        raise ConfigError(
            f"the invitation does not state {name}: {mend} --{name.replace('_', '-')}"
        )
    return stated

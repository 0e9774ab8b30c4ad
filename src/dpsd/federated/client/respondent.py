"""Answering a federation's requests from a client's own teacher, within its own budget.

>>> import dpsd, tempfile, torch
>>> from dpsd.federated.requests import Hello, Request
>>> def bright(images):  # a "teacher" of two classes
...     light = images.mean((1, 2, 3))
...     return torch.stack([0.2 - light, light - 0.2], dim=1) * 20
>>> teacher = dpsd.load_teacher(bright, input_shape=(1, 8, 8), num_classes=2, scores="logits")
>>> with tempfile.TemporaryDirectory() as folder:
...     respondent = Respondent(
...         teacher,
...         mechanism=dpsd.RandomizedResponse(),
...         target=dpsd.Budget(epsilon=2.0, adjacency="response"),
...         plan=AnswerPlan(rounds=4, queries=100),
...         directory=folder,
...     )
...     hello = Hello(federation="f00d", shape=(1, 8, 8), num_classes=2)
...     print(respondent.greet(hello).answers_left)
...     images = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 8, 8)
...     request = Request(federation="f00d", number=1, deadline=1e12, images=images)
...     reply, again = respondent.answer(request), respondent.answer(request)
...     print(reply.code, reply.release.equal(again.release), respondent.certificate().events)
400
answered True {'response': 1, 'round': 1, 'teacher': 2}
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dpsd.devices.execution import Execution
from dpsd.errors import BudgetError, ConfigError, DpsdError, RunError, Setting
from dpsd.federated.client.answers import Known, packed, sha256_of
from dpsd.federated.client.checking import RefusedError, check_hello, check_request, is_over
from dpsd.federated.client.folder import ClientFolder
from dpsd.federated.client.plan import Allowance, AnswerPlan
from dpsd.federated.client.settings import new_settings
from dpsd.federated.mechanisms import rebuilt
from dpsd.federated.requests import Code, Greeting, Hello, Reply, Request
from dpsd.privacy.accounting import PrivacySpent, format_epsilon, spent_together
from dpsd.privacy.calibration import calibrate
from dpsd.privacy.mechanisms import Mechanism, RandomizedResponse
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.records.ledger import reservation, spending_of
from dpsd.privacy.targets import Adjacency, Budget
from dpsd.runs.observing import Observer
from dpsd.teachers import Teacher
from dpsd.teachers.describing import described

#: The bytes that are recorded about an image, besides its release.
_BYTES_AN_IMAGE = 500
#: The most images of noise that a teacher is asked about before it is asked anything.
_REHEARSED = 64
#: The requests whose answers may be lost until the operator must look, and start the client again.
_MOST_LOST = 3
#: How long to wait for other processes that hold the client's records, in seconds.
_PATIENCE = 10.0

ReplyT = TypeVar("ReplyT", Greeting, Reply)


class Respondent:
    """Answers a federation's requests: privately, within a plan, and about no image twice.

    All state is in the directory, so a client continues after a restart as if nothing had happened.
    It takes part in one federation: the one that is named, or else the first that greets it. An
    image that it was asked about before gets the release that it got then, at no cost. If the
    answers of a request are lost in a crash, they stay charged, and these images are never asked
    about again: one image is one event, whatever the server sends and whatever fails. That a
    teacher failed tells the server something of it without noise, so after three such requests the
    client answers nothing new until it is started again.

    Args:
        teacher: the client's teacher, or ensemble of teachers.
        mechanism: the mechanism that privatises answers before they leave the client; its noise
            level is left open, and the target determines it. It is
            :class:`~dpsd.RandomizedResponse` or :class:`~dpsd.Gaussian` for one teacher, and
            :class:`~dpsd.NoisyVotes` or :class:`~dpsd.SummedGradients` for several.
        target: the privacy target of the whole plan.
        plan: what is answered at most.
        directory: the client's directory: a new or empty one, or that of this client.
        account: the accounts that the teacher is charged to; ``None`` if nothing identifies it.
        budget_file: the budget in ``account`` that the owner named, which the directory records.
        cap: the most that the teacher may spend in all, in this federation and elsewhere; by
            default, the target. A higher cap at the target's δ and adjacency lets a client go on
            whose answers were lost; beside any other cap, the target holds too.
        federation: the identity of the federation; by default, of the first to greet the client.
        execution: the device that images are moved to; by default, the CPU.
        observer: is told what happens, for the client's own operator.
        clock: returns the time in seconds since 1970, as deadlines are compared with.

    Raises:
        ConfigError: the arguments make no sense together.
        BudgetError: the target cannot be met, or the plan would exceed the cap.
        TeacherError: the teacher does not answer public noise.
        DpsdError: the directory holds something else, or its records contradict each other.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        mechanism: Mechanism,
        target: Budget,
        plan: AnswerPlan,
        directory: str | Path,
        account: Accounts | None = None,
        budget_file: str | Path | None = None,
        cap: Budget | None = None,
        federation: str | None = None,
        execution: Execution | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if mechanism.is_calibrated:
            raise ConfigError(
                "the mechanism's noise level is set and a target is given as well, and the two may "
                "contradict each other; leave the level open, and dpsd calibrates it"
            )
        if cap is not None and (account is None or account.unknown):
            raise ConfigError(
                *("a ", Setting("cap"), " needs to know what the teacher has spent: say with "),
                *(Setting("budget_file"), " where its budget is"),
            )
        self.teacher, self.plan = teacher, plan
        self.execution = execution or Execution.of("cpu", "float32")
        self.observer = observer or Observer()
        self.clock = clock
        self._account = account
        self._turn = Lock()  # two messages may be delivered at once
        self.folder = ClientFolder(Path(directory))
        mechanism = mechanism.for_members(teacher.members)
        if is_new := not self.folder.exists():
            self.mechanism = calibrate(mechanism, target, plan.exposure)
        else:
            self.folder.require_unchanged()
            self.mechanism = self.folder.restored(mechanism)
        rebuilt(self.mechanism.parameters(), num_classes=teacher.num_classes)
        self.allowance = Allowance(
            mechanism=self.mechanism, target=target, cap=cap, account=account
        )
        settings = new_settings(
            teacher, mechanism=self.mechanism, target=target, plan=plan, budget_file=budget_file
        )
        self._rehearse()
        if is_new:
            self.allowance.require(settings.run, asked=[], planned=plan.all_rounds)
            self.folder.create(settings)
        else:
            self.folder.require_same(settings)
        with self.folder.held(account):
            self.folder.recover(account)
            self._lost_before = self.folder.lost()
        self._federation = self.folder.federation
        self._wanted = federation
        if federation is not None and self._federation not in (None, federation):
            raise RunError(
                f"{directory} takes part in another federation, {self._federation}: give another "
                "--out"
            )

    def greet(self, hello: Hello) -> Greeting:
        """Take part in a federation, unless the client takes part in another one.

        Returns:
            The client's mechanism and what it may still answer, or why it does not take part.
        """
        return self._safely(lambda: self._greeted(hello), lambda code: Greeting(code=code))

    def answer(self, request: Request) -> Reply:
        """Answer a request, or say why not.

        Returns:
            The releases, or a code alone. A refusal costs nothing and changes no record.
        """
        return self._safely(lambda: self._answered(request), lambda code: Reply(code=code))

    def planned(self) -> PrivacySpent:
        """What the whole plan costs, under all adjacencies at the target's δ."""
        return self.allowance.spent_on(self.plan.all_rounds)

    def certificate(self) -> Certificate:
        """Compute the certificate of what was answered so far, from the client's own ledger.

        Raises:
            RunError: nothing was answered yet, or the records contradict each other.
        """
        return self.folder.certify()

    def _safely(self, act: Callable[[], ReplyT], refusal: Callable[[Code], ReplyT]) -> ReplyT:
        """Do something for the server, which learns nothing of an error but its code."""
        with self._turn:
            try:
                return act()
            except RefusedError as error:
                self.observer.notice(f"refused as {error.code.value}: {error}")
                return refusal(error.code)
            except Exception as error:  # noqa: BLE001 - foreign code may raise anything
                # The messages of other errors than dpsd's may quote an answer.
                said = [str(error)] if isinstance(error, DpsdError) else described(error)
                self.observer.warn(f"{Code.FAILED.value}: {''.join(said)}")
                return refusal(Code.FAILED)

    def _greeted(self, hello: Hello) -> Greeting:
        check_hello(hello, self.teacher)
        self._require_federation(hello.federation, self._wanted or hello.federation)
        with self.folder.held(self._account, patience=_PATIENCE):
            if self._federation is None:
                account, delta = self._account, self.allowance.target.delta
                earlier = None if account is None else account.history(delta=delta)
                self.folder.join(hello.federation, self.teacher, earlier=earlier)
                # As recorded: another process may have joined in the meantime.
                self._federation = self.folder.federation
            self._require_federation(hello.federation, self._federation)
            return Greeting(
                code=Code.ANSWERED,
                mechanism=self.mechanism.parameters(),
                answers_left=self.answers_left(),
                spent=self.spent(),
                ledger=self.folder.ledger.head,
            )

    def _answered(self, request: Request) -> Reply:
        self._require_federation(request.federation, self._federation)
        left = self._require_time(request)
        check_request(
            request,
            shape=self.teacher.input_shape,
            num_classes=self.teacher.num_classes,
            takes_candidates=isinstance(self.mechanism, RandomizedResponse),
        )
        digests = sha256_of(request.images)
        if len(set(digests)) < len(digests):
            raise RefusedError(Code.MALFORMED, "an image occurs more than once in the request")
        # Without candidates, all classes are: it is the same question.
        every = torch.ones((len(request), self.teacher.num_classes), dtype=torch.bool)
        candidates = packed(every if request.candidates is None else request.candidates)
        with self.folder.held(self._account, patience=min(_PATIENCE, left)) as holds:
            self.folder.recover(self._account)
            known = self.folder.answers.known(digests)
            new = [place for place, digest in enumerate(digests) if digest not in known]
            if new:
                index = self._admitted(len(new))
                for hold in holds:
                    hold.require()
                self.teacher.require_unchanged()
                self._require_time(request)  # the last moment at which refusing costs nothing
                self._ask(request, index, new, digests, candidates)
                known = self.folder.answers.known(digests)
            reply = self._reply([known[digest] for digest in digests], candidates)
        self._tell(request, reply, new=len(new))
        return reply

    def _require_federation(self, federation: str, own: str | None) -> None:
        if own is None or federation != own:
            raise RefusedError(Code.MALFORMED, "the client takes part in another federation")

    def _rehearse(self) -> None:
        """Have the teacher answer public noise, as answers that fail are paid for and lost."""
        if not self.teacher.is_free:
            return  # it answered noise when it was loaded, and may be paid for each answer
        shape = (min(_REHEARSED, self.teacher.query_batch), *self.teacher.input_shape)
        noise = self.execution.images(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
        for batch in (noise, noise[:1]):
            self.teacher.rehearse(batch)

    def _require_time(self, request: Request) -> float:
        """Refuse a request that is late; returns the seconds that are left of its time."""
        now = self.clock()
        if is_over(request.deadline, now):
            raise RefusedError(Code.LATE, f"the deadline of round {request.number} has passed")
        return request.deadline - now

    def answers_left(self) -> int:
        """The number of images that plan, target and caps let the client answer."""
        left = self._left_of_plan()
        try:
            if left:
                self._require_allowed(1)
        except BudgetError:
            return 0
        return left

    def _left_of_plan(self) -> int:
        return self.plan.left(self.folder.asked(), stored=len(self.folder.committed()))

    def _admitted(self, answers: int) -> int:
        """The number of the round in which so many new images may be answered.

        It is the client's own: a server could use its numbers twice.
        """
        if self.folder.lost() - self._lost_before >= _MOST_LOST:
            raise RunError(
                f"the answers to {_MOST_LOST} requests were lost, and each time the server learned "
                "that the teacher failed; find out why, and start the client again"
            )
        if answers > (left := self._left_of_plan()):
            raise RefusedError(
                Code.BUDGET, f"{answers:,} new images are asked, and the plan leaves {left:,}"
            )
        try:
            return self._require_allowed(answers)
        except BudgetError as error:
            raise RefusedError(Code.BUDGET, str(error)) from None

    def _require_allowed(self, answers: int) -> int:
        """Make sure that so many images may be answered; returns the number of their round."""
        asked = self.folder.asked()
        index = len(asked) + 1
        run = self.folder.settings().run
        self.allowance.require(run, asked=asked, planned=[(index, answers)])
        return index

    def _ask(
        self,
        request: Request,
        index: int,
        new: Sequence[int],
        digests: Sequence[bytes],
        candidates: Sequence[bytes],
    ) -> None:
        """Have the teacher answer the new images, after recording the cost, and store releases."""
        folder, chosen = self.folder, [digests[place] for place in new]
        # Twice, as SQLite keeps what it changes until the transaction ends.
        folder.require_space(2 * len(new) * (self._no_release(1).nbytes + _BYTES_AN_IMAGE))
        folder.answers.begin(index, chosen, [candidates[place] for place in new])
        entry = reservation(
            round_index=index,
            answers=len(new),
            mechanism=self.mechanism,
            teacher=self.teacher.fingerprint,
            asking=secrets.token_hex(8),
        )
        folder.ledger.reserve(entry)
        if self._account is not None:
            place = str(folder.path.absolute())
            self._account.reserve(entry, run=folder.settings().run, directory=place)
        prior = request.prior(self.teacher.num_classes)
        release = self._privatised(index, request.images[new], prior[new])
        folder.answers.store(chosen, [row.tobytes() for row in release.numpy()])
        folder.ledger.commit(round_index=index, sha256=folder.answers.sha256(index))
        folder.save_certificate()

    def _privatised(self, index: int, images: Tensor, prior: Tensor) -> Tensor:
        """What the mechanism releases of the teacher's answers, batch by batch."""
        mechanism = self.mechanism.with_noise(self.mechanism.noise.for_round(index))
        size = self.teacher.query_batch
        parts = zip(torch.split(images, size), torch.split(prior, size), strict=True)
        released = []
        for number, (shown, likely) in enumerate(parts):
            shown = self.execution.images(shown)
            answers = self.teacher.ask(shown, query_batch=number)
            released.append(mechanism.privatize(answers, likely.to(shown.device)).cpu())
        return torch.cat(released)

    def _reply(self, known: Sequence[Known], candidates: Sequence[bytes]) -> Reply:
        """The reply for images that are all known, from what is stored of them."""
        pairs = zip(known, candidates, strict=True)
        releases = [one.release if one.candidates == asked else None for one, asked in pairs]
        answered = np.array([one is not None for one in releases])
        release = self._no_release(len(known)).numpy()
        whole = b"".join(one for one in releases if one is not None)
        release[answered] = np.frombuffer(whole, release.dtype).reshape(-1, *release.shape[1:])
        return Reply(
            code=Code.ANSWERED,
            release=torch.from_numpy(release),
            answered=torch.from_numpy(answered),
            spent=self.spent(),
            ledger=self.folder.ledger.head,
        )

    def _no_release(self, images: int) -> Tensor:
        """Zeros of the type and shape of the mechanism's releases."""
        if isinstance(self.mechanism, RandomizedResponse):
            return torch.zeros(images, dtype=torch.int64)
        return torch.zeros((images, self.teacher.num_classes))

    def spent(self) -> dict[str, float]:
        """ε by adjacency, with ``delta``, as the ledger records it."""
        own, delta = self.folder.reservations(), self.allowance.target.delta
        spent = spent_together([spending_of(own)] if own else [], delta=delta)
        return {kind.value: spent.under(kind) for kind in Adjacency} | {"delta": spent.delta}

    def _tell(self, request: Request, reply: Reply, *, new: int) -> None:
        target = self.allowance.target
        epsilon = format_epsilon(reply.spent[target.adjacency.value])
        self.observer.notice(
            f"round {request.number}: {new:,} images answered, and {len(request) - new:,} known; "
            f"ε = {epsilon} is spent under {target.adjacency.value!r} at δ = {target.delta:g}"
        )

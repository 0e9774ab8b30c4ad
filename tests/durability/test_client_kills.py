"""Kill clients of a federation (SIGKILL) at random moments; nothing is asked twice or forgotten."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

import dpsd
from dpsd.federated.client.answers import sha256_of
from dpsd.federated.client.folder import ClientFolder
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.respondent import Respondent
from dpsd.federated.requests import Code, Hello, Request
from dpsd.privacy.records.teacher_budget import TeacherBudget
from dpsd.runs.budgets import budget_of
from dpsd.teachers import CallableTeacher

SHAPE = (1, 8, 8)
ROUNDS, QUERIES, KILLS = 6, 20, 9


class Place:
    """A folder with a client in it, its budget, and logs of what was asked and of what it sent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.client = folder / "client"
        self.budget = folder / "budget.jsonl"
        self.asked_log, self.sent_log = folder / "asked.log", folder / "sent.log"

    def start(self) -> Respondent:
        def scores(images: Tensor) -> Tensor:
            if started:
                log(self.asked_log, [digest.hex() for digest in digests(images)])
            return images.flatten(1)[:, :3]

        started: list[bool] = []
        teacher = CallableTeacher(
            scores, input_shape=SHAPE, num_classes=3, scores="logits", name="thirds"
        )
        client = Respondent(
            teacher,
            mechanism=dpsd.RandomizedResponse(),
            target=dpsd.Budget(epsilon=1.0, adjacency="response"),
            plan=AnswerPlan(rounds=ROUNDS, queries=QUERIES),
            directory=self.client,
            account=budget_of(teacher, self.budget),
            observer=Silent(),
        )
        started.append(True)  # what it was shown so far was public noise
        hello = Hello(federation="f00d", shape=SHAPE, num_classes=3)
        assert client.greet(hello).code is Code.ANSWERED
        return client

    def play(self) -> None:
        """Ask for every round, and log what is sent."""
        client = self.start()
        for number in range(1, ROUNDS + 1):
            reply = client.answer(request(number))
            assert reply.code is Code.ANSWERED, reply.code
            assert reply.answered is not None
            assert reply.release is not None
            rows = zip(reply.answered.tolist(), reply.release.tolist(), strict=True)
            log(self.sent_log, [f"{number} {place} {row}" for place, row in enumerate(rows)])

    def check(self) -> None:
        """Each image was asked once at most, and all that was asked is owned up to."""
        asked = Counter(lines(self.asked_log))
        assert set(asked.values()) <= {1}
        folder = ClientFolder(self.client)
        in_ledger = sum(answers for _, answers in folder.asked())
        budget = TeacherBudget(self.budget, teacher="callable:thirds")
        in_budget = sum(run.spending.exposure.teacher for run in budget.runs())
        assert in_ledger >= in_budget >= len(asked)
        sent = Counter(text.split(" ", 2)[0] + text.split(" ", 2)[1] for text in self.released())
        assert set(sent.values()) <= {1}, "an image has two releases"

    def released(self) -> set[str]:
        return {text for text in lines(self.sent_log) if "(True" in text}


class Silent(dpsd.Observer):
    """Hears nothing."""

    def warn(self, message: str) -> None:
        raise AssertionError(message)


def request(number: int) -> Request:
    draws = torch.Generator().manual_seed(number)
    images = torch.randint(256, (QUERIES, *SHAPE), generator=draws, dtype=torch.uint8)
    return Request(federation="f00d", number=number, deadline=1e12, images=images)


def digests(images: Tensor) -> list[bytes]:
    return sha256_of((images * 255).round().byte())


def log(path: Path, texts: list[str]) -> None:
    with path.open("ab", buffering=0) as file:
        file.write("".join(f"{text}\n" for text in texts).encode())


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def child(place: Place) -> int:
    """Play in a fork; returns the child's process number."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        torch.set_num_threads(1)
        place.play()
        status = 0
    finally:
        if status:
            traceback.print_exc()  # otherwise nobody sees why a fork ended
        os._exit(status)


@pytest.mark.skipif(sys.platform == "win32", reason="clients are forked children")
def test_clients_that_are_killed_ask_nothing_twice_and_forget_nothing(tmp_path: Path) -> None:
    torch.set_num_threads(1)  # a fork has only the thread that forked
    moments = random.Random()
    peace = Place(tmp_path / "peace")
    peace.start()  # imports and caches what every child inherits
    start = time.perf_counter()
    assert os.waitstatus_to_exitcode(os.waitpid(child(peace), 0)[1]) == 0
    seconds = time.perf_counter() - start
    kills, number = 0, 0
    while kills < KILLS:
        number += 1
        place = Place(tmp_path / str(number))
        for _ in range(3):
            process = child(place)
            time.sleep(moments.uniform(0, seconds))
            os.kill(process, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            assert status in (0, -signal.SIGKILL)
            kills += status == -signal.SIGKILL
            place.check()
        place.play()
        place.check()
        certificate = ClientFolder.open(place.client).certify()
        assert certificate.events["response"] == 1
        assert certificate.events["teacher"] == ROUNDS * QUERIES
        stored = json.loads((place.client / "certificate.json").read_text())
        assert stored == json.loads(certificate.to_json())

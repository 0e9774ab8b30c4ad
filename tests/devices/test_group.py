"""Several processes train one model: real ones, started as SLURM's ``srun`` would."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, os, signal, sys
import torch
import torch.nn.functional as F
from dpsd.devices.group import Group
from dpsd.devices.placement import scheduled

count, how = int(sys.argv[1]), sys.argv[2]
rank = int(os.environ["SLURM_PROCID"])
found = {}


class Student(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.always, self.never = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        self.sometimes = torch.nn.Linear(3, 3)
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, rows):
        self.norm(rows)  # gathers statistics, and takes no part in the gradients
        logits = self.always(rows)
        return self.sometimes(logits) if (rows[:, 0] > 0).all() else logits


class Failing(torch.autograd.Function):
    forward = staticmethod(lambda ctx, loss: loss.clone())

    @staticmethod
    def backward(ctx, gradient):
        if how == "kill" and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if (how, rank) in {("raise", 1), ("own", 0)}:
            raise RuntimeError("0.731 is an answer")
        return gradient


def flat(model):
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in model.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients])


torch.manual_seed(rank)  # they start out different
student = Student()
try:
    with Group(scheduled(count), torch.device("cpu")) as group:
        apart, means = 0.0, []
        with group.training(student) as learner:
            torch.manual_seed(9)  # and see the same batches
            for total in (64, 7, 1, 2, 3, 5):
                rows, labels = torch.rand(total, 4), torch.randint(0, 3, (total,))
                rows[: total // 3] -= 1.0  # some processes use weights that others do not
                share = group.share(total)
                if total == 1:
                    student.eval()  # BatchNorm cannot train on one row
                logits = learner(rows[share.rows])
                loss = F.cross_entropy(logits, labels[share.rows])
                student.zero_grad()
                group.backward(Failing.apply(loss) if how else loss, share)
                combined = flat(student)
                student.train()
                parts = [Group(scheduled(count), torch.device("cpu")) for _ in range(count)]
                expected = torch.zeros_like(combined)
                for other, part in enumerate(parts):
                    part.rank = other
                    theirs = part.share(total)
                    student.eval()
                    student.zero_grad()
                    F.cross_entropy(student(rows[theirs.rows]), labels[theirs.rows]).backward()
                    expected += theirs.weight * flat(student)
                    student.train()
                apart = max(apart, float((combined - expected).abs().max()))
        found["apart"] = apart
        found["names"] = sorted(student.state_dict())
        found["norm"] = student.norm.running_mean.tolist()
        found["weights"] = student.always.weight.tolist()
        found["hooks"] = len(student._forward_hooks) + len(student._forward_pre_hooks)
    student.zero_grad()
    student(torch.rand(8, 4)).sum().backward()  # it is a model like any other again
except Exception as error:
    found["kind"], found["message"] = type(error).__name__, str(error)
with open(f"found-{rank}.json", "w") as file:
    json.dump(found, file)
"""


def srun(place: Path, count: int, how: str = "") -> tuple[list[dict[str, Any]], str]:
    """What each process found that did not die, and what all of them printed."""
    (place / "script.py").write_text(SCRIPT)
    step = {
        "SLURM_JOB_ID": str(secrets.randbelow(1_000_000)),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "script.py", str(count), how],
            cwd=place,
            env={**os.environ, **step, "SLURM_PROCID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        printed = "".join(process.communicate(timeout=120)[0] for process in processes)
    finally:
        for process in processes:
            process.kill()
    return [json.loads(path.read_text()) for path in sorted(place.glob("found-*.json"))], printed


def test_gradients_are_those_of_the_whole_batch_whatever_weights_a_process_uses(
    tmp_path: Path,
) -> None:
    found, printed = srun(tmp_path, 3)
    assert not printed
    assert len(found) == 3
    assert all(process["apart"] < 1e-6 for process in found), found
    assert found[0]["weights"] == found[1]["weights"] == found[2]["weights"]  # process 0's
    assert found[0]["norm"] == found[1]["norm"] == found[2]["norm"]  # the mean of theirs
    assert "always.weight" in found[0]["names"]
    assert not any(name.startswith("module.") for name in found[0]["names"])
    assert found[0]["hooks"] == 0


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        pytest.param(
            *("kill", "RunError", "one of the 2 processes ended without a word"),
            marks=pytest.mark.thorough,
        ),
        ("raise", "RunError", "process 1 stopped with RuntimeError (its message is withheld"),
        pytest.param(*("own", "RuntimeError", "0.731 is an answer"), marks=pytest.mark.thorough),
    ],
)
def test_a_process_that_fails_as_gradients_are_averaged_ends_all(
    tmp_path: Path, how: str, kind: str, message: str
) -> None:
    found, printed = srun(tmp_path, 2, how)
    assert not printed
    assert found[0]["kind"] == kind
    assert found[0]["message"].startswith(message)
    if how == "own":
        assert found[1]["kind"] == "StoppedError"

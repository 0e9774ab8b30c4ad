"""Who plays a run: this process alone, or several, and who starts them.

With ``devices`` above one, process 0 starts the others on its machine: each runs
:mod:`dpsd.transcription.following`, is told on its standard input which run to join, and loads
the teacher itself. Under ``torchrun`` or SLURM's ``srun`` all processes are there already, and
each has a teacher of its own.

>>> from dpsd.config.transcription import TranscriptionConfig
>>> config = TranscriptionConfig(teacher="teacher/", epsilon=1.0)
>>> is_follower(config.recipe.devices)
False
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from dpsd.config.objects import IN_MEMORY
from dpsd.config.transcription import TranscriptionConfig
from dpsd.devices.execution import Execution
from dpsd.devices.group import Group
from dpsd.devices.messages import recalled
from dpsd.devices.placement import Placement, scheduled
from dpsd.devices.processes import ALONE, Processes
from dpsd.errors import ConfigError, Setting
from dpsd.teachers import Teacher

#: Seconds that a follower has to end by itself once it is told to.
_NOTICE = 2.0

#: What a follower runs. It finds the modules that this process finds, wherever they come from.
_FOLLOWER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from dpsd.transcription.following import main; main()"
)


def is_follower(devices: int) -> bool:
    """Whether a scheduler started this process as another than process 0 of a run.

    Raises:
        ConfigError: as one of another number of processes.
    """
    placement = scheduled(devices)
    return placement is not None and placement.rank > 0


def processes_for(
    config: TranscriptionConfig,
    teacher: Teacher,
    *,
    run: Path,
    student: str | nn.Module | None = None,
    generator: str | nn.Module | None = None,
) -> Processes:
    """The processes that play a run together; they join when their context is entered.

    Args:
        config: as resolved; ``devices`` says how many.
        teacher: the one that this process asks.
        run: the run directory, on a file system that all processes share.
        student: what :func:`dpsd.transcribe` was given, if anything.
        generator: the same for the generator.

    Raises:
        ConfigError: this torch cannot join processes, a scheduler started another number of
            processes, or what was given exists in this process alone.
    """
    recipe = config.recipe
    placement = scheduled(recipe.devices)
    if recipe.devices == 1:
        return ALONE
    if not dist.is_available():
        raise ConfigError(
            Setting("devices"),
            f" is {recipe.devices}, and this build of torch joins no processes "
            "(torch.distributed.is_available() is False): install another, or use one device",
        )
    device = Execution.of(recipe.device, recipe.precision, devices=recipe.devices).device
    if placement is not None:
        return Group(placement, device)
    models = [model for model in (student, generator) if isinstance(model, nn.Module)]
    has_tensor = IN_MEMORY in (recipe.public, recipe.probe)
    if teacher.location is None or models or has_tensor:
        what = (
            f"model {type(models[0]).__qualname__}" if models else f"teacher {teacher.description}"
        )
        if has_tensor:
            what = "tensor of public images"
        raise ConfigError(
            Setting("devices"),
            f" is {recipe.devices}, and the {what} exists in this process alone: name it by "
            "a path or package.module:factory, or start the script itself in every process, with "
            f"torchrun --nproc-per-node {recipe.devices}",
        )
    settings = config.flat(mode="json") | {
        "teacher": teacher.location,
        "teacher_weights": teacher.weights_location,
    }
    told = {"run": str(run.absolute()), "config": settings, "student": student}
    followers = _Followers(recipe.devices, told | {"generator": generator})
    return Group(Placement(0, recipe.devices, recipe.devices), device, followers)


class _Followers:
    """The processes beside process 0, on the same machine.

    Args:
        count: how many processes there are.
        told: what each of them needs to join the run.
    """

    def __init__(self, count: int, told: Mapping[str, Any]) -> None:
        self._count, self._told = count, told
        self._started: list[subprocess.Popen[str]] = []

    def start(self) -> tuple[str, int]:
        for rank in range(1, self._count):
            process = subprocess.Popen(
                [sys.executable, "-c", _FOLLOWER, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # What a foreign library prints as it fails might quote answers.
                stderr=None if os.environ.get("DPSD_DEBUG") else subprocess.DEVNULL,
                # Ctrl-C is for process 0, which then ends the others.
                start_new_session=True,
                env={**os.environ, "LOCAL_RANK": str(rank)},
                encoding="utf-8",
            )
            self._started.append(process)
            self._tell(process, {**self._told, "rank": rank, "count": self._count})
        for process in self._started:
            assert process.stdout is not None
            heard = process.stdout.readline()
            answer = json.loads(heard) if heard else {"kind": "RunError", "message": _VANISHED}
            if answer != {"ready": True}:
                raise recalled(answer)
        address = ("127.0.0.1", _free_port())
        for process in self._started:
            self._tell(process, {"address": address})
        return address

    def stop(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            try:
                process.wait(_NOTICE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(OSError):
                    pipe.close()
        self._started.clear()

    def _tell(self, process: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # its answer, or that there is none, says why
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()


_VANISHED = "a process that was to help ended before it was ready; DPSD_DEBUG=1 shows what it says"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

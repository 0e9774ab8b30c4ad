"""A process that helps process 0 play a run, started by :mod:`dpsd.transcription.launching`.

It is told on standard input, in a line of JSON, which run to join and where its teacher is; it
says on standard output that it is ready, or why not; and is told in a second line where process 0
is found. Nothing else is ever written to either.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from dpsd.config.transcription import TranscriptionConfig
from dpsd.devices.execution import Execution
from dpsd.devices.group import Group
from dpsd.devices.messages import described
from dpsd.devices.placement import Placement
from dpsd.errors import RunError
from dpsd.transcription.starting import follow


def main() -> None:
    """Help until the run is over."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # a teacher may print, as it is loaded too, and process 0 reads this line
    told = json.loads(sys.stdin.readline())
    rank, count = int(told["rank"]), int(told["count"])
    try:
        config = TranscriptionConfig(**told["config"])
        teacher = config.load_teacher()
        execution = Execution.of(config.recipe.device, config.recipe.precision, devices=count)
    except Exception as error:  # noqa: BLE001 - whatever it is, process 0 has to tell it
        print(json.dumps(described(error, rank=rank)), file=answer, flush=True)
        sys.exit(1)
    print(json.dumps({"ready": True}), file=answer, flush=True)
    meeting = sys.stdin.readline()
    if not meeting:  # process 0 is gone
        sys.exit(1)
    host, port = json.loads(meeting)["address"]
    try:
        follow(
            Path(told["run"]),
            teacher,
            config=config,
            student=told["student"],
            generator=told["generator"],
            processes=Group(Placement(rank, count, count, address=(host, port)), execution.device),
        )
    except RunError:
        # Process 0 says it; here it would be said twice.
        sys.exit(1)

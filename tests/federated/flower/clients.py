"""A client for tests: it answers with each image's first pixel, and misbehaves on request."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

from dpsd.federated.flower.invitations import read_invitation
from dpsd.federated.flower.joining import join
from dpsd.federated.flower.places import ClientPlace
from dpsd.federated.requests import Code, Greeting, Hello, Reply, Request

#: What no server may ever see.
SECRET = "/data/patients/MARY-SMITH.png"

#: First pixels of a request's first image at which the client raises, sleeps, leaves or is killed.
RAISES, SLEEPS, LEAVES, DIES = 251, 252, 253, 254
#: How long it sleeps, in seconds.
SLEEP = 4.0


class FirstPixel:
    """Answers with each image's first pixel, modulo the number of classes."""

    def __init__(self) -> None:
        self.asked = 0

    def greet(self, hello: Hello) -> Greeting:
        return Greeting(code=Code.ANSWERED, mechanism={"classes": hello.num_classes})

    def answer(self, request: Request) -> Reply:
        self.asked += 1
        pixels = request.images[:, 0, 0, 0]
        if pixels[0] == RAISES:
            raise FileNotFoundError(f"no such file: {SECRET}")
        if pixels[0] == SLEEPS:
            time.sleep(SLEEP)
        if pixels[0] == LEAVES:
            sys.exit(SECRET)
        if pixels[0] == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        return Reply(
            code=Code.ANSWERED,
            release=pixels.long() % 10,
            answered=torch.ones(len(request), dtype=torch.bool),
            spent={"response": float(request.number)},
        )


def request(pixel: int, *, number: int = 1, deadline: float) -> Request:
    """Two images, of which the first begins with this pixel."""
    images = torch.zeros((2, 1, 4, 4), dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor([pixel, 7])
    return Request(federation="f00d", number=number, deadline=deadline, images=images)


def main(folder: str, invitation: str) -> None:
    """Take part in a federation until interrupted."""
    text = Path(invitation).read_text("utf-8")
    join(ClientPlace(Path(folder)), read_invitation(text), FirstPixel())

"""While a teacher is asked, nothing that it says is heard, and what must be heard is."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from dpsd.teachers.silence import silenced, spared

SECRET = "class 3 has 0.7317"


def print_it() -> None:
    print(SECRET)
    print(SECRET, file=sys.stderr)


def print_to_the_original_streams() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        assert stream is not None
        stream.write(SECRET)  # without the end of a line, it waits in Python's buffer


def write_to_descriptors() -> None:
    for descriptor in (1, 2):
        os.write(descriptor, SECRET.encode())


def print_in_c() -> None:
    ctypes.CDLL(None).printf(SECRET.encode())  # waits in the C library's buffer


def warn() -> None:
    warnings.warn(SECRET, stacklevel=1)


def log() -> None:
    logging.getLogger("a.teacher").critical(SECRET)


def start_a_process() -> None:
    subprocess.run(["sh", "-c", f"echo {SECRET}; echo {SECRET} >&2"], check=True)


def print_in_a_thread() -> None:
    thread = threading.Thread(target=print_it)
    thread.start()
    thread.join()


def fail_in_a_thread() -> None:
    thread = threading.Thread(target=lambda: int(SECRET))
    thread.start()
    thread.join()


SAYING: list[Callable[[], None]] = [
    *(print_it, print_to_the_original_streams, write_to_descriptors, print_in_c, warn, log),
    *(start_a_process, print_in_a_thread, fail_in_a_thread),
]
WORDS = pytest.mark.parametrize("say", SAYING, ids=[say.__name__ for say in SAYING])


def heard(capfd: pytest.CaptureFixture[str]) -> str:
    """All that has reached the standard streams, whoever wrote it."""
    for stream in (sys.__stdout__, sys.__stderr__):
        assert stream is not None
        stream.flush()
    ctypes.CDLL(None).fflush(None)
    return "".join(capfd.readouterr())


@WORDS
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nothing_is_heard(
    say: Callable[[], None],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    with silenced():
        say()
    assert SECRET not in heard(capfd) + caplog.text
    assert not recwarn.list


@WORDS
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_silence_all_of_it_would_be(
    say: Callable[[], None],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("threading.excepthook", threading.__excepthook__)
    say()
    words = heard(capfd) + caplog.text
    assert SECRET in words + "".join(str(one.message) for one in recwarn.list)


def test_what_was_said_before_and_after_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    assert sys.__stdout__ is not None
    sys.__stdout__.write("before, ")
    ctypes.CDLL(None).printf(b"before in C, ")
    with silenced():
        write_to_descriptors()
    os.write(1, b"after")
    assert heard(capfd) == "before, before in C, after"


def interrupt(output: os.stat_result) -> None:
    assert os.fstat(1) != output
    raise KeyboardInterrupt


def test_everything_is_as_it_was_after_an_exception() -> None:
    before = (sys.stdout, sys.stderr, warnings.showwarning, logging.root.manager.disable)
    descriptors = [os.fstat(descriptor) for descriptor in (1, 2)]
    with pytest.raises(KeyboardInterrupt), silenced():
        interrupt(descriptors[0])
    assert before == (sys.stdout, sys.stderr, warnings.showwarning, logging.root.manager.disable)
    assert [os.fstat(descriptor) for descriptor in (1, 2)] == descriptors


def test_descriptors_do_not_pile_up() -> None:
    with silenced():
        pass
    free = next_descriptor()
    for _ in range(50):
        with silenced():
            pass
    assert next_descriptor() == free


def next_descriptor() -> int:
    found = os.dup(1)
    os.close(found)
    return found


def test_silence_lasts_until_the_last_thread_has_asked(capfd: pytest.CaptureFixture[str]) -> None:
    """Two threads ask at overlapping times, in the order in which a stack would be confused."""
    first_left, second_in = threading.Event(), threading.Event()

    def first() -> None:
        with silenced():
            second_in.wait(10)
        first_left.set()

    def second() -> None:
        with silenced():
            second_in.set()
            first_left.wait(10)
            os.write(1, SECRET.encode())

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(1, b"heard again")
    assert heard(capfd) == "heard again"


def test_a_closed_stream_is_no_hindrance() -> None:
    """Of a daemon, say; in a process of its own."""
    silent = "from dpsd.teachers.silence import silenced\nwith silenced(): print(1)"
    code = f"import os; os.close(1)\n{silent}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_spared_stream_is_heard_and_leaves_the_original_open(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert sys.__stderr__ is not None
    with spared(sys.__stderr__) as stream, silenced():
        stream.write("a bar")
        stream.flush()
        sys.__stderr__.write(SECRET)
    sys.__stderr__.write(", and more")
    assert heard(capfd) == "a bar, and more"


def test_a_stream_that_is_no_file_is_spared_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with spared(sys.stderr) as stream, silenced():
        stream.write("a bar")
        print(SECRET, file=sys.stderr)
    assert capsys.readouterr().err == "a bar"


def test_silence_costs_nearly_nothing() -> None:
    """A batch of two thousand images takes a teacher ten milliseconds at the very least."""
    with silenced():
        pass
    best = min(_seconds_of_silence() for _ in range(50))
    assert best < 1e-3


def _seconds_of_silence() -> float:
    start = time.perf_counter()
    with silenced():
        pass
    return time.perf_counter() - start


TEACHER = f"""
import os, sys, time
import torch

def factory():
    calls = []

    def answer(images):
        calls.append(len(images))
        if len(calls) > 1:
            print({SECRET!r})
            os.write(2, {SECRET!r}.encode())
            time.sleep(1.5)
        return images.flatten(1)[:, :3]
    return answer
"""


@pytest.mark.thorough
def test_the_progress_bar_goes_on_while_a_teacher_is_asked(tmp_path: Path) -> None:
    """On a terminal of sixty columns, and with no terminal to ask but that one."""
    (tmp_path / "slow.py").write_text(TEACHER)
    ours, theirs = pty.openpty()
    pty_size(theirs, columns=60)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dpsd", "transcribe", "slow:factory", "--input-shape", "1,8,8"),
            *("--epsilon", "4", "--rounds", "1", "--queries", "50", "--generator-steps", "0"),
            *("--device", "cpu", "--out", "run"),
        ],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={
            **{name: value for name, value in os.environ.items() if name != "COLUMNS"},
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
            "TERM": "xterm",
        },
    )
    os.close(theirs)
    with io.FileIO(ours) as terminal:
        seen = _all_of(terminal)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, seen
    assert SECRET not in seen + out.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    asked = [line for line in re.split(r"[\r\n]+", plain) if ": teacher" in line]
    # While the teacher took more than a second, the clock of its phase went on, in one line.
    assert any("0:00:01" in line for line in asked), seen
    assert max(map(len, asked)) <= 60


def pty_size(descriptor: int, *, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def _all_of(terminal: io.FileIO) -> str:
    parts = []
    with contextlib.suppress(OSError):  # the other side has closed it
        while part := terminal.read(4096):
            parts.append(part)
    return b"".join(parts).decode()

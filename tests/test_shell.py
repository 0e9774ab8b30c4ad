"""Command lines in messages are what a shell reads back as the same words."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsd.shell import command_line


@pytest.mark.skipif(os.name == "nt", reason="shlex reads POSIX shells")
@given(st.lists(st.text(min_size=1), min_size=1))
def test_a_shell_reads_the_same_words(words: list[str]) -> None:
    assert shlex.split(command_line(*words)) == words


def test_plain_words_stay_plain() -> None:
    words = ("dpsd", "sample", Path("runs") / "digits", "--count", 10_000)
    assert command_line(*words) == f"dpsd sample {Path('runs') / 'digits'} --count 10000"


def test_windows_has_quotes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpsd.shell.os.name", "nt")
    assert command_line("dpsd", "certify", "runs\\my run") == 'dpsd certify "runs\\my run"'

"""What processes tell each other."""

from __future__ import annotations

import pytest
import torch

from dpsd.devices.messages import described, packed, recalled, unpacked
from dpsd.errors import AnswerError, BudgetError, DpsdError, RunError, WriteError


@pytest.mark.parametrize("kind", [AnswerError, BudgetError, WriteError, RunError, DpsdError])
def test_an_error_keeps_its_kind_and_exit_code(kind: type[DpsdError]) -> None:
    error = recalled(described(kind("it is so"), rank=3))
    assert type(error) is kind
    assert isinstance(error, DpsdError)
    assert error.exit_code == kind("").exit_code
    assert str(error) == "it is so (in process 3)"


def test_a_kind_of_ones_own_is_the_one_it_derives_from() -> None:
    class DeafError(AnswerError):
        pass

    assert type(recalled(described(DeafError("it is deaf"), rank=1))) is AnswerError


def test_foreign_errors_are_named_and_not_quoted() -> None:
    note = described(RuntimeError("scores [0.731, 0.269]"), rank=2)
    assert "0.731" not in str(note)
    assert "process 2 stopped with RuntimeError" in str(recalled(note))
    assert isinstance(recalled(described(MemoryError("0.731"), rank=1)), MemoryError)
    assert "0.731" not in str(described(MemoryError("0.731"), rank=1))


def test_tensors_arrive_as_they_were_sent() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    sent = [whole.T, whole[1], torch.tensor(2, dtype=torch.int32), torch.ones(2).bfloat16()]
    found = unpacked(packed(sent))
    assert all(one.equal(other) for one, other in zip(found, sent, strict=True))
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in sent]
    assert unpacked(packed([])) == []

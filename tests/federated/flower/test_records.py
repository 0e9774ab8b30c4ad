"""Messages as Flower's records: what is sent is what arrives, and nothing hostile gets through."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dpsd.federated.flower import records
from dpsd.federated.flower.records import (
    RecordError,
    greeting_record,
    hello_record,
    read_greeting,
    read_hello,
    read_reply,
    read_request,
    reply_record,
    request_record,
)
from dpsd.federated.requests import Code, Greeting, Hello, Reply, Request

COSTS = st.dictionaries(st.text(max_size=9), st.floats(0, math.inf, allow_nan=False), max_size=3)
LEDGERS = st.text("0123456789abcdef", max_size=64)
CODES = st.sampled_from([Code.ANSWERED, Code.LATE, Code.BUDGET, Code.MALFORMED, Code.FAILED])
REFUSALS = CODES.filter(lambda code: code is not Code.ANSWERED)
READERS: list[Callable[[RecordDict], object]] = [
    read_hello,
    read_greeting,
    read_request,
    read_reply,
]


def sent(record: RecordDict) -> RecordDict:
    """A record after its way through Flower's bytes."""

    def carried(part: Any) -> Any:
        children = {key: carried(child) for key, child in (part.children or {}).items()}
        return type(part).inflate(part.deflate(), children)

    arrived: RecordDict = carried(record)
    return arrived


@st.composite
def requests(draw: st.DrawFn) -> Request:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), *[st.integers(1, 9)] * 2))
    candidates = None
    if draw(st.booleans()):
        marks = draw(npst.arrays(bool, (shape[0], draw(st.integers(2, 20)))))
        marks[:, :2] = True
        candidates = torch.from_numpy(marks)
    return Request(
        federation=draw(st.text(max_size=20)),
        number=draw(st.integers(1, 1 << 31)),
        deadline=draw(st.floats(-1e12, 1e12)),
        images=torch.from_numpy(draw(npst.arrays(np.uint8, shape))),
        candidates=candidates,
    )


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    spent, ledger = draw(COSTS), draw(LEDGERS)
    if not draw(st.booleans()):
        return Reply(code=draw(REFUSALS), spent=spent, ledger=ledger)
    count, classes = draw(st.integers(1, 9)), draw(st.integers(2, 400))
    answered = torch.from_numpy(draw(npst.arrays(bool, count)))
    if draw(st.booleans()):
        values = draw(npst.arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    else:
        finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
        values = draw(npst.arrays(np.float32, (count, 3), elements=finite))
    release = torch.from_numpy(values)
    release[~answered] = 0
    return Reply(code=Code.ANSWERED, release=release, answered=answered, spent=spent, ledger=ledger)


@given(
    st.builds(
        Hello,
        federation=st.text(max_size=20),
        shape=st.tuples(*[st.integers(1, 300)] * 3),
        num_classes=st.integers(2, 1000),
    )
)
def test_the_first_message_arrives_as_it_was_sent(hello: Hello) -> None:
    assert read_hello(sent(hello_record(hello))) == hello


@given(
    st.builds(
        Greeting,
        code=CODES,
        mechanism=st.dictionaries(
            st.text(max_size=9),
            st.none()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=9),
        ),
        answers_left=st.integers(0, 1 << 31),
        spent=COSTS,
        ledger=LEDGERS,
    )
)
def test_a_greeting_arrives_as_it_was_sent(greeting: Greeting) -> None:
    assert read_greeting(sent(greeting_record(greeting))) == greeting


@given(requests())
def test_a_request_arrives_as_it_was_sent(request: Request) -> None:
    arrived = read_request(sent(request_record(request)))
    assert (arrived.federation, arrived.number) == (request.federation, request.number)
    assert arrived.deadline == request.deadline
    assert arrived.images.equal(request.images)
    if request.candidates is None:
        assert arrived.candidates is None
    else:
        assert arrived.candidates is not None
        assert arrived.candidates.equal(request.candidates)


@given(replies())
def test_a_reply_arrives_as_it_was_sent(reply: Reply) -> None:
    arrived = read_reply(sent(reply_record(reply)))
    assert (arrived.code, arrived.spent, arrived.ledger) == (reply.code, reply.spent, reply.ledger)
    if reply.release is None or reply.answered is None:
        assert arrived.release is arrived.answered is None
    else:
        assert arrived.release is not None
        assert arrived.answered is not None
        assert arrived.release.dtype == reply.release.dtype
        assert arrived.release.equal(reply.release)
        assert arrived.answered.equal(reply.answered)


VALUES = (
    st.booleans()
    | st.integers(-(1 << 62), 1 << 62)
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["uint8", "int16", "float32", "zlib", "bits"])
    | st.binary(max_size=40)
    | st.binary(max_size=40).map(zlib.compress)
    | st.lists(st.integers(-2, 1 << 40), max_size=5)
    | st.lists(st.floats(), max_size=2)
    | st.lists(st.text(max_size=3), max_size=2)
)


@st.composite
def mangled(draw: st.DrawFn) -> RecordDict:
    """A message of which some parts were replaced, removed or added."""
    made = draw(
        st.sampled_from(
            [
                hello_record(Hello(federation="f", shape=(1, 2, 2), num_classes=3)),
                greeting_record(Greeting(code=Code.ANSWERED, mechanism={"a": 1}, spent={"r": 1.0})),
                request_record(
                    Request(
                        federation="f",
                        number=1,
                        deadline=1.0,
                        images=torch.zeros((2, 1, 2, 2), dtype=torch.uint8),
                        candidates=torch.ones((2, 3), dtype=torch.bool),
                    )
                ),
                reply_record(
                    Reply(
                        code=Code.ANSWERED,
                        release=torch.tensor([1, 2]),
                        answered=torch.tensor([True, True]),
                        spent={"r": 1.0},
                    )
                ),
            ]
        )
    )
    record: dict[str, Any] = sent(made)  # type: ignore[assignment]
    values = record["message"]
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*values, "more"]))
        if draw(st.booleans()):
            values.pop(name, None)
        else:
            values[name] = draw(VALUES)
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(["message", "more"]))
        record[name] = draw(
            st.sampled_from([ConfigRecord({"x": 1}), MetricRecord({"x": 1.0}), ArrayRecord({})])
        )
    return record  # type: ignore[return-value]


@given(mangled(), st.sampled_from(READERS))
def test_whatever_arrives_is_a_message_or_a_clean_error(
    record: RecordDict, read: Callable[[RecordDict], object]
) -> None:
    with suppress(RecordError):
        read(record)


@given(replies())
def test_a_message_is_one_record_as_each_costs_requests_of_its_own(reply: Reply) -> None:
    record = reply_record(reply)
    assert [type(part) for part in record.values()] == [ConfigRecord]
    assert not record["message"].children


def with_images(shape: list[int], data: bytes) -> RecordDict:
    record = request_record(
        Request(
            federation="f",
            number=1,
            deadline=1.0,
            images=torch.zeros((1, 1, 2, 2), dtype=torch.uint8),
        )
    )
    record.config_records["message"].update({"images": data, "images.shape": shape})
    return record


def test_images_that_unpack_to_more_than_their_shape_says_are_refused_early() -> None:
    bomb = zlib.compress(bytes(1 << 26))
    with pytest.raises(RecordError, match="pixels"):
        read_request(with_images([1, 1, 2, 2], bomb))


def test_images_of_more_bytes_than_a_message_may_have_are_refused_before_they_are_unpacked() -> (
    None
):
    with pytest.raises(RecordError, match="more than"):
        read_request(with_images([1 << 20, 3, 1 << 10, 1 << 10], b""))


def test_a_cost_under_two_names_or_two_under_one_is_refused() -> None:
    record = reply_record(Reply(code=Code.LATE, spent={"response": 1.0, "round": 2.0}))
    for names in (["response"], ["response", "response"]):
        record.config_records["message"]["adjacencies"] = names
        with pytest.raises(RecordError, match="costs"):
            read_reply(record)


def test_a_reply_may_not_bear_a_code_that_is_the_servers_own() -> None:
    for code in (Code.SILENT, Code.GARBAGE):
        with pytest.raises(RecordError, match="code"):
            read_reply(reply_record(Reply(code=code)))


def test_scores_that_are_no_finite_numbers_are_neither_sent_nor_read() -> None:
    answered = torch.tensor([True])
    bad = Reply(code=Code.ANSWERED, release=torch.tensor([[math.nan, 1.0]]), answered=answered)
    with pytest.raises(RecordError, match="finite"):
        reply_record(bad)
    good = Reply(code=Code.ANSWERED, release=torch.tensor([[0.5, 1.0]]), answered=answered)
    record = reply_record(good)
    forged = np.array([[math.nan, 1.0]], dtype="<f4").tobytes()
    record.config_records["message"]["release"] = forged
    with pytest.raises(RecordError, match="finite"):
        read_reply(record)


def test_a_release_without_an_answer_is_not_sent() -> None:
    reply = Reply(
        code=Code.ANSWERED,
        release=torch.tensor([3, 7]),
        answered=torch.tensor([True, False]),
    )
    release = read_reply(reply_record(reply)).release
    assert release is not None
    assert release.tolist() == [3, 0]


def test_a_release_of_randomised_response_takes_one_byte() -> None:
    reply = Reply(
        code=Code.ANSWERED,
        release=torch.arange(10).repeat(100),
        answered=torch.ones(1000, dtype=torch.bool),
    )
    values: Any = reply_record(reply).config_records["message"]
    assert len(values["release"]) == 1000
    assert len(values["answered"]) == 125
    assert records.MOST_BYTES >= 60_000 * 3 * 32 * 32

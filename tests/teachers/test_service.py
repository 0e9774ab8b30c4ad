"""Teachers behind a service: what is sent, what is sent again, and what may be said."""

from __future__ import annotations

import json
import logging
import shutil
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dpsd.errors import AnswerError, ConfigError, TeacherError
from dpsd.privacy.answers import AnswerCheckError, open_for_mechanism
from dpsd.teachers import ServiceOptions, ServiceTeacher, load_teacher
from dpsd.teachers.address import ServiceAddress
from dpsd.teachers.failures import RequestFailure
from dpsd.teachers.inference import decode, encode, read_interface
from dpsd.teachers.layouts import Layout
from dpsd.teachers.volley import volley

from .stub import CLASSES, Reply, Stub, error, scores, serving

TOKEN = "s3cret-t0ken"
SECRET = "0.123456"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as state:
        yield state


@pytest.fixture
def images() -> Tensor:
    return torch.rand(23, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def loaded(stub: Stub, **options: Any) -> ServiceTeacher:
    """The teacher, and a server that has forgotten how it was loaded."""
    own = {name: options.pop(name) for name in ("input_shape", "output") if name in options}
    chosen = {"request_images": 5, "requests_in_flight": 3, "request_seconds": 5.0} | options
    teacher = ServiceTeacher(stub.address, options=ServiceOptions(**chosen), **own)
    stub.forget()
    return teacher


def answers(teacher: ServiceTeacher, images: Tensor) -> Tensor:
    return open_for_mechanism(teacher.ask(images, query_batch=0))


def expected(images: Tensor) -> Tensor:
    return torch.from_numpy(scores(images.numpy())).softmax(-1)


# What is sent and understood.


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize(
    ("image_type", "score_type", "off"),
    [
        ("FP32", "FP32", 1e-6),
        ("FP16", "FP16", 0.02),
        ("FP64", "FP64", 1e-6),
        ("UINT8", "FP32", 0.1),
    ],
)
def test_answers_are_those_of_the_model_in_order(
    stub: Stub, images: Tensor, image_type: str, score_type: str, off: float, binary: bool
) -> None:
    stub.binary, stub.image_type, stub.score_type = binary, image_type, score_type
    teacher = loaded(stub)
    torch.testing.assert_close(answers(teacher, images), expected(images), atol=off, rtol=0)
    assert sorted(stub.sizes) == [3, 5, 5, 5, 5]
    assert set(stub.was_binary) == {binary}
    assert set(stub.seen.values()) == {1}
    assert len(stub.seen) == 23


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((-1, 1, 8, 8), None),
        ((-1, 8, 8, 1), None),
        ((-1, 8, 8), None),
        ((-1, 64), (1, 8, 8)),
        ((-1, -1, -1, -1), None),
    ],
)
def test_images_are_arranged_as_the_model_wants_them(
    stub: Stub, images: Tensor, shape: tuple[int, ...], given: tuple[int, int, int] | None
) -> None:
    stub.image_shape = shape
    if shape[1:] == (-1, -1, -1):
        with pytest.raises(TeacherError, match=r"leaves open .* give input_shape"):
            loaded(stub)
        return
    teacher = loaded(stub, input_shape=given)
    assert teacher.input_shape == (1, 8, 8)
    torch.testing.assert_close(answers(teacher, images), expected(images))


@given(st.sampled_from([1, 3]), st.integers(5, 9), st.integers(5, 9), st.integers(1, 4))
def test_an_arrangement_with_channels_last_has_the_same_numbers(
    channels: int, height: int, width: int, count: int
) -> None:
    images = torch.rand(count, channels, height, width)
    first = Layout.of((channels, height, width), None, where="it")
    last = Layout.of((height, width, channels), None, where="it")
    assert first.shape == last.shape == (channels, height, width)
    assert np.array_equal(last.arranged(images).transpose(0, 3, 1, 2), first.arranged(images))
    declared = Layout.of((-1, -1, channels), (channels, height, width), where="it")
    assert declared.arranged(images).shape == (count, height, width, channels)


def test_a_shape_that_contradicts_the_service_is_refused(stub: Stub) -> None:
    with pytest.raises(TeacherError, match="takes images of 1,8,8, but input_shape 1,9,9"):
        loaded(stub, input_shape=(1, 9, 9))


def test_a_fixed_batch_is_filled_with_black_images(stub: Stub, images: Tensor) -> None:
    stub.image_shape = (4, 1, 8, 8)
    teacher = loaded(stub)
    torch.testing.assert_close(answers(teacher, images), expected(images))
    assert stub.sizes == [4] * 6
    assert sorted(stub.seen.values())[-2:] == [1, 1]  # the one black image and no image twice


def test_requests_are_under_way_at_once_but_not_too_many(stub: Stub, images: Tensor) -> None:
    def slowly(number: int, rows: int) -> None:
        time.sleep(0.05)

    stub.instead = slowly
    teacher = loaded(stub, request_images=2)
    stub.busiest = 0
    answers(teacher, images)
    assert stub.busiest == 3


def test_too_large_requests_are_halved_and_nothing_is_asked_twice(
    stub: Stub, images: Tensor
) -> None:
    stub.most = 3
    teacher = loaded(stub, request_images=16)
    torch.testing.assert_close(answers(teacher, images), expected(images))
    assert max(stub.sizes) <= 3
    assert set(stub.seen.values()) == {1}
    assert len(stub.seen) == 23
    stub.most = 0
    with pytest.raises(AnswerError, match="answered with an error instead of scores"):
        answers(teacher, images)


def test_the_output_with_the_scores_is_found_or_named(stub: Stub, images: Tensor) -> None:
    both = [
        {"name": name, "datatype": "FP32", "shape": [-1, CLASSES]} for name in ("scores", "logits")
    ]
    stub.outputs = [both[0], {"name": "label", "datatype": "INT64", "shape": [-1]}]
    torch.testing.assert_close(answers(loaded(stub), images), expected(images))
    stub.outputs = both
    with pytest.raises(TeacherError, match=r"has 2 outputs .* name it with output"):
        loaded(stub)
    torch.testing.assert_close(answers(loaded(stub, output="logits"), images), expected(images))
    with pytest.raises(TeacherError, match="output 'odds' is none of"):
        loaded(stub, output="odds")


def test_a_declared_number_of_classes_is_checked(stub: Stub) -> None:
    with pytest.raises(TeacherError, match="says num_classes 3, but num_classes 4 was given"):
        ServiceTeacher(stub.address, num_classes=4)


# Identity.


def test_a_service_is_known_by_address_and_version(stub: Stub) -> None:
    teacher = load_teacher(stub.address)
    assert teacher.fingerprint == f"service:{stub.address}/versions/3"
    assert teacher.location == f"{stub.address}/versions/3"
    assert teacher.requires_budget_file
    stub.versions = ("3", "4")
    with pytest.raises(TeacherError, match=r"several versions \(3, 4\).*versions/4"):
        load_teacher(stub.address)
    stub.answered_as = "4"
    assert load_teacher(f"{stub.address}/versions/4").fingerprint.endswith("/versions/4")
    stub.versions, stub.answered_as = (), None
    assert load_teacher(stub.address).fingerprint == f"service:{stub.address}"
    stub.answered_as = "5"
    only_in_answers = load_teacher(stub.address)
    assert only_in_answers.fingerprint == f"service:{stub.address}/versions/5"
    assert only_in_answers.location == stub.address
    stub.answered_as = "6"
    with pytest.raises(AnswerError, match="answered as another version"):
        only_in_answers.ask(torch.rand(1, 1, 8, 8), query_batch=0)


def test_an_answer_of_another_version_is_refused(stub: Stub, images: Tensor) -> None:
    teacher = loaded(stub)
    stub.answered_as = "4"
    with pytest.raises(AnswerError, match="answered as another version of the model than before"):
        answers(teacher, images)


@pytest.mark.parametrize(
    ("url", "fingerprint"),
    [
        ("HTTPS://Models.Example:443/v2/models/m/", "service:https://models.example/v2/models/m"),
        ("https://h:8443/a/b/v2/models/m", "service:https://h:8443/a/b/v2/models/m"),
        ("http://[::1]:8000/v2/models/m", "service:http://[::1]:8000/v2/models/m"),
    ],
)
def test_an_address_has_one_spelling(url: str, fingerprint: str) -> None:
    assert ServiceAddress.of(url).fingerprint == fingerprint
    assert ServiceAddress.of(fingerprint.removeprefix("service:")).fingerprint == fingerprint


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://user:hunter2@h/v2/models/m", "credentials do not belong"),
        ("https://hunter2@h/v2/models/m", "credentials do not belong"),
        ("https://h/v2/models/m?key=hunter2", "leave out what follows the path"),
        ("https://h/v2/models/m#hunter2", "leave out what follows the path"),
        ("https://h/v2/models/m/infer", "is not the address of a model: give https://HOST"),
        ("https://h/models/m", "is not the address of a model"),
        ("https:///v2/models/m", "is not the address of a model"),
        ("https://h:port/v2/models/m", "is not a URL"),
        ("http://h/v2/models/m", "unencrypted: give https://, or allow it with plain_http"),
    ],
)
def test_addresses_of_other_forms_are_refused_without_quoting_secrets(url: str, words: str) -> None:
    with pytest.raises(TeacherError, match=words) as caught:
        load_teacher(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)


def test_plain_http_is_for_this_machine_or_allowed_by_name() -> None:
    assert ServiceAddress.of("http://localhost:8000/v2/models/m").is_local
    assert ServiceAddress.of("http://h/v2/models/m", plain_http=True).scheme == "http"
    assert not ServiceAddress.of("http://localhost.example/v2/models/m", plain_http=True).is_local


def test_service_options_are_for_services(stub: Stub) -> None:
    with pytest.raises(TeacherError, match="is for the address of a service"):
        load_teacher("teacher.onnx", service=ServiceOptions())


# What is sent again, and what is not.


@pytest.mark.parametrize("after", ["1", None], ids=["with Retry-After", "without"])
def test_a_busy_service_is_asked_again(stub: Stub, images: Tensor, after: str | None) -> None:
    teacher = loaded(stub, request_images=23)
    busy = error(429, **({} if after is None else {"Retry_After": after}))
    stub.instead = lambda number, rows: busy if number == 1 else None
    start = time.monotonic()
    torch.testing.assert_close(answers(teacher, images), expected(images))
    assert time.monotonic() - start >= (0.5 if after is None else 1)
    assert (stub.requests, set(stub.seen.values())) == (2, {1})


def test_an_unavailable_service_is_asked_again_only_if_it_says_when(
    stub: Stub, images: Tensor
) -> None:
    teacher = loaded(stub, request_images=23)
    stub.instead = lambda number, rows: error(503, Retry_After="0") if number == 1 else None
    torch.testing.assert_close(answers(teacher, images), expected(images))
    stub.forget()
    stub.instead = lambda number, rows: error(503)
    with pytest.raises(AnswerError, match="answered with an error instead of scores"):
        answers(teacher, images)
    assert stub.requests == 1


def test_a_service_that_asks_to_wait_too_long_is_a_failure(stub: Stub, images: Tensor) -> None:
    teacher = loaded(stub, request_images=23)
    stub.instead = lambda number, rows: error(429, Retry_After="86400")
    with pytest.raises(AnswerError, match="answered with an error"):
        answers(teacher, images)
    assert stub.requests == 1


def test_a_service_that_is_started_again_is_reached_again(images: Tensor) -> None:
    with serving() as stub:
        teacher = loaded(stub)
        port = int(stub.address.split(":")[2].split("/")[0])
    came_back = threading.Event()

    def come_back() -> None:
        time.sleep(0.6)
        with serving(stub, port=port):
            came_back.wait(10)

    thread = threading.Thread(target=come_back)
    thread.start()
    try:
        torch.testing.assert_close(answers(teacher, images), expected(images))
        assert set(stub.seen.values()) == {1}
    finally:
        came_back.set()
        thread.join()


GOOD = json.dumps(
    {"outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
).encode()


def saying(**changed: Any) -> Reply:
    """A reply of JSON to a request about one image, with some of it changed."""
    output = {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, float(SECRET)]}
    return Reply(body=json.dumps({"outputs": [output | changed]}).encode())


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(500, f"overflow at {SECRET}"), "answered with an error instead of scores"),
        (error(400, f"bad {SECRET}"), "answered with an error instead of scores"),
        (error(404, f"gone {SECRET}"), "answered with an error instead of scores"),
        (error(307, Location="http://127.0.0.1:1/v2"), "answered with an error instead of scores"),
        (Reply(wait=1.5, body=GOOD), "did not answer in time .*request_seconds"),
        (Reply(drop=True), "could not be reached, or the connection to it broke"),
        (Reply(body=GOOD, length=4000), "could not be reached, or the connection to it broke"),
        (Reply(body=GOOD[:40]), "answered with something other than class scores"),
        (Reply(body=SECRET.encode()), "answered with something other than class scores"),
        (Reply(body=b"[" * 100_000), "answered with something other than class scores"),
        (Reply(body=b" " * 9_000_000), "answered with something other than class scores"),
        (saying(shape=[3]), "another shape than"),
        (saying(shape=[3, 1]), "another shape than"),
        (saying(shape=[1, -3]), "answered with something other than class scores"),
        (saying(shape=[1, 4]), "answered with something other than class scores"),
        (saying(shape=[1, 2], data=[1, 2]), "another number of classes than 3"),
        (saying(data=[1, 2, float("nan")]), "values that are not finite"),
        (saying(data=[1, 2, None]), "answered with something other than class scores"),
        (saying(data=[1, 2, SECRET]), "answered with something other than class scores"),
        (saying(name="odds"), "answered with something other than class scores"),
        (saying(datatype="INT64"), "answered with something other than class scores"),
        (
            saying(parameters={"binary_data_size": 12}),
            "answered with something other than class scores",
        ),
    ],
)
def test_failures_are_told_by_kind_alone_and_nothing_is_asked_again(
    stub: Stub, images: Tensor, reply: Reply, words: str
) -> None:
    teacher = loaded(stub, request_seconds=0.5)
    stub.instead = lambda number, rows: reply
    with pytest.raises(AnswerError, match=rf"query batch 0: .* the teacher .*{words}") as caught:
        answers(teacher, images[:1])
    assert stub.requests == 1
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert "status" not in told
    assert caught.value.__context__ is None
    assert "\n" not in str(caught.value)


def test_rows_that_two_requests_confuse_are_noticed(stub: Stub, images: Tensor) -> None:
    """One answers about an image more and the other about one less: together, they add up."""
    teacher = loaded(stub, requests_in_flight=1)
    stub.scores = lambda rows: np.ones((len(rows) + (1 if len(rows) == 5 else -1), CLASSES))
    with pytest.raises(AnswerError, match="another shape than"):
        answers(teacher, images[:8])


def test_after_a_failure_no_request_begins(stub: Stub, images: Tensor) -> None:
    teacher = loaded(stub, request_images=1, requests_in_flight=1)
    stub.instead = lambda number, rows: error(500) if number == 3 else None
    with pytest.raises(AnswerError):
        answers(teacher, images)
    time.sleep(0.2)
    assert stub.requests == 3
    stub.instead = lambda number, rows: None
    stub.forget()
    torch.testing.assert_close(answers(teacher, images), expected(images))


def test_all_requests_together_may_have_a_limit(stub: Stub, images: Tensor) -> None:
    teacher = loaded(stub, request_images=1, requests_in_flight=1, service_seconds=0.7)
    teacher.forecast(1)
    stub.instead = lambda number, rows: Reply(wait=0.2, body=GOOD)
    start = time.monotonic()
    with pytest.raises(AnswerError, match="did not answer in time"):
        answers(teacher, images)
    assert time.monotonic() - start < 2


def test_a_connection_that_was_idle_is_not_used_again(
    stub: Stub, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = loaded(stub)
    before = teacher._connection._pool
    teacher.ask(images, query_batch=0)
    assert teacher._connection._pool is before
    monkeypatch.setattr("dpsd.teachers.connection._IDLE", 0.0)
    teacher.ask(images, query_batch=1)
    assert teacher._connection._pool is not before


# What is told about public noise, and what never.


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(400, "unexpected\nshape"), r"status 400 \(Bad Request\): unexpected shape"),
        (error(401, "who?"), "status 401 .*is DPSD_TEACHER_TOKEN set"),
        (error(500, "x" * 900), r"status 500 .*: x{300}\. Are"),
        (error(302, Location="https://elsewhere"), r"redirect \(status 302\), which is not"),
        (Reply(body=b"<html>"), "answered in another form than the protocol's"),
        (saying(data=[float("nan")] * 3), r"shape \(1, 3\) instead of \(5, number"),
        (saying(datatype="INT64"), "INT64, which are no scores; name another output with output"),
    ],
)
def test_what_goes_wrong_with_public_noise_is_told(stub: Stub, reply: Reply, words: str) -> None:
    stub.instead = lambda number, rows: reply
    with pytest.raises(TeacherError, match=words) as caught:
        loaded(stub)
    assert "\n" not in str(caught.value)


def test_a_missing_model_and_an_absent_service_are_told(stub: Stub) -> None:
    with pytest.raises(TeacherError, match="the service has no such model; check its name"):
        load_teacher(stub.address.replace("digits", "letters"))
    with serving() as gone:
        pass
    with pytest.raises(TeacherError, match=r"could not be reached \(NewConnectionError\)"):
        load_teacher(gone.address)


def test_the_token_is_sent_and_never_shown(
    stub: Stub,
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DPSD_TEACHER_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    teacher = loaded(stub)
    answers(teacher, images)
    assert {headers["authorization"] for headers in stub.headers} == {f"Bearer {TOKEN}"}
    shown = [repr(teacher), teacher.fingerprint, str(teacher.loaded_with), str(vars(teacher))]
    stub.instead = lambda number, rows: error(400, f"bad header Bearer {TOKEN}")
    with pytest.raises(TeacherError, match=r"bad header Bearer \(the token\)") as caught:
        loaded(stub)
    shown += traceback.format_exception(caught.value)
    with pytest.raises(AnswerError) as asked:
        answers(teacher, images)
    shown += traceback.format_exception(asked.value)
    assert TOKEN not in "".join([*shown, caplog.text, *capfd.readouterr()])


def test_a_token_goes_nowhere_unencrypted_nor_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPSD_TEACHER_TOKEN", TOKEN)
    with pytest.raises(TeacherError, match="would send the token in DPSD_TEACHER_TOKEN"):
        load_teacher("http://h/v2/models/m", service=ServiceOptions(plain_http=True))
    monkeypatch.setenv("DPSD_TEACHER_TOKEN", f"{TOKEN}\r\nX-Other: 1")
    with pytest.raises(TeacherError, match="characters that no token has") as caught:
        load_teacher("https://h/v2/models/m")
    assert TOKEN not in str(caught.value)


def test_redirects_do_not_take_the_token_elsewhere(
    stub: Stub, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPSD_TEACHER_TOKEN", TOKEN)
    with serving() as other:
        teacher = loaded(stub)
        stub.instead = lambda number, rows: error(307, Location=f"{other.address}/infer")
        with pytest.raises(AnswerError):
            answers(teacher, images)
        assert not other.headers


def test_nothing_about_queries_is_logged(
    stub: Stub, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    """The length of an answer, which urllib3 logs, depends on it where it is JSON."""
    stub.binary = False
    teacher = loaded(stub)
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    late = threading.Event()

    def after_the_failure(number: int, rows: int) -> Reply | None:
        if number == 1:
            return error(500)
        late.wait(5)
        return None

    stub.instead = after_the_failure
    with pytest.raises(AnswerError):
        answers(teacher, images)
    late.set()  # requests under way end now, when nothing is silenced any more
    time.sleep(0.3)
    assert "infer" not in caplog.text


def test_a_certificate_of_nobody_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    with pytest.raises(TeacherError, match=r"ca_bundle .*ca\.pem' cannot be read as certificates"):
        load_teacher("https://h/v2/models/m", service=ServiceOptions(ca_bundle=str(bundle)))
    bundle.write_text("no certificate")
    with pytest.raises(TeacherError, match=r"ca_bundle .*ca\.pem' cannot be read as certificates"):
        load_teacher("https://h/v2/models/m", service=ServiceOptions(ca_bundle=str(bundle)))


# Estimates.


def test_a_forecast_comes_from_noise_and_finds_the_size_of_requests(
    stub: Stub, images: Tensor
) -> None:
    teacher = loaded(stub, request_images=16, requests_in_flight=2)
    stub.most = 4
    said = teacher.forecast(1_000)
    assert said is not None
    assert "1,000 images in about 250 requests, 2 at a time" in said
    assert "judging by 8 images of noise" in said
    stub.forget()
    answers(teacher, images)
    assert stub.requests == 6  # of up to four, and none too large


def test_a_forecast_beyond_the_limit_is_refused(stub: Stub) -> None:
    teacher = loaded(stub, service_seconds=0.5)
    with pytest.raises(ConfigError, match="but service_seconds allows 1 second"):
        teacher.forecast(100_000_000)


def test_a_forecast_of_a_broken_service_says_why(stub: Stub) -> None:
    teacher = loaded(stub)
    stub.instead = lambda number, rows: error(500, "out of order")
    with pytest.raises(TeacherError, match=r"the service answered with status 500 .*out of order"):
        teacher.forecast(100)


# Parts.


def test_tensors_survive_the_protocol() -> None:
    metadata = {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
    }
    model = read_interface(metadata, where="it")

    @given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=8), st.booleans())
    def check(numbers: list[float], binary: bool) -> None:
        rows = np.array(numbers[: len(numbers) // 2 * 2], dtype=np.float32).reshape(-1, 2)
        body, headers = encode(rows, model, binary=binary)
        # A request and an answer have the same form, but for one word.
        answer = body.replace(b'"inputs"', b'"ignored"').replace(b'"outputs"', b'"wanted"')
        answer = answer.replace(b'"ignored"', b'"outputs"', 1).replace(b'"image"', b'"scores"')
        headers = dict(headers)
        if binary:
            shift = len(answer) - len(body)
            name = "Inference-Header-Content-Length"
            headers[name] = str(int(headers[name]) + shift)
        found, _ = decode(answer, headers, model=model, rows=len(rows), version=None)
        assert np.array_equal(found, rows)

    check()


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=5)))
def test_no_body_breaks_the_reader(body: bytes, length: str | None) -> None:
    metadata = {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
    }
    model = read_interface(metadata, where="it")
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    with pytest.raises((RequestFailure, AnswerCheckError)):
        decode(body, headers, model=model, rows=1, version=None)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"inputs": 3}, "in another form than version 2"),
        ({"inputs": [{"name": "a"}]}, "in another form than version 2"),
        ({"inputs": [{"name": "a", "datatype": "BYTES", "shape": [-1, 1]}]}, "a teacher takes"),
        (
            {"inputs": [{"name": n, "datatype": "FP32", "shape": [-1, 4]} for n in "ab"]},
            "has 2 inputs, a teacher has one",
        ),
    ],
)
def test_descriptions_of_no_classifier_are_refused(metadata: dict[str, Any], words: str) -> None:
    with pytest.raises(TeacherError, match=words):
        read_interface(metadata, where="it")


def test_a_volley_does_not_wait_for_what_was_given_up() -> None:
    stop, held = threading.Event(), threading.Event()

    def fails() -> int:
        raise ValueError("no")

    tasks: list[Callable[[], int]] = [lambda: int(held.wait(20)), fails]
    start = time.monotonic()
    with pytest.raises(ValueError, match="no"):
        volley(tasks, threads=2, stop=stop)
    with pytest.raises(TimeoutError):
        volley([lambda: int(held.wait(20))], threads=1, stop=threading.Event(), seconds=0.05)
    assert time.monotonic() - start < 5
    assert stop.is_set()
    held.set()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine by an authority that nobody trusts, with its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    made = [folder / "cert.pem", folder / "key.pem"]
    subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=stub", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", made[0], "-keyout", made[1]),
        ],
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text("".join(path.read_text() for path in made))
    return both


def test_a_service_is_trusted_only_with_a_certificate_of_a_known_authority(
    certificate: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPSD_TEACHER_TOKEN", TOKEN)
    with serving(certificate=certificate) as stub:
        with pytest.raises(TeacherError, match=r"reached securely: .*trust .* with ca_bundle"):
            loaded(stub)
        assert not stub.headers  # and so no token
        teacher = loaded(stub, ca_bundle=str(certificate))
        torch.testing.assert_close(answers(teacher, images), expected(images))
        other = stub.address.replace("127.0.0.1", "localhost")
        with pytest.raises(TeacherError, match="reached securely"):  # the name is another one
            load_teacher(other, service=ServiceOptions(ca_bundle=str(certificate)))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        torch.testing.assert_close(answers(loaded(stub), images), expected(images))


def test_certificates_are_always_verified() -> None:
    from dpsd.teachers.connection import Connection

    address = ServiceAddress.of("https://h/v2/models/m")
    pool = Connection(address, ServiceOptions())._pool
    context = pool.conn_kw["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname

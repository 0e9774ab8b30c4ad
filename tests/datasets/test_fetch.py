"""Downloads, against a server on this machine."""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dpsd.datasets import dataset_names, fetch, fetchable_names, load_dataset
from dpsd.errors import ConfigError, DataError, UnknownNameError

# The package exports the function under the module's name.
module = importlib.import_module("dpsd.datasets.fetch")

PLAIN = {"images-ubyte.gz": b"pixels" * 9999, "labels-ubyte.gz": b"classes" * 99}
PACKED = {name: gzip.compress(content, mtime=0) for name, content in PLAIN.items()}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server and the folder it serves, with the right files in it."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in PACKED.items():
        (folder / name).write_bytes(content)
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


@pytest.fixture(params=[True, False], ids=["unpacked", "packed"], autouse=True)
def _tiny_source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny files instead of MNIST's four, with checksums of either kind."""
    contents = PLAIN if request.param else PACKED
    sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    source = module.Source(
        mirrors=("http://127.0.0.1:1/",), checksums=sums, of_unpacked=request.param
    )
    monkeypatch.setitem(module.SOURCES, "mnist", source)


def test_fetch_then_skip(tmp_path: Path, served: tuple[str, Path]) -> None:
    url, folder = served
    told: list[tuple[str, int, int]] = []
    paths = fetch(
        "mnist", tmp_path / "data", base_url=url, progress=lambda *state: told.append(state)
    )
    assert [path.name for path in paths] == list(PACKED)
    assert [path.read_bytes() for path in paths] == list(PACKED.values())
    assert told[-1] == (
        "labels-ubyte.gz",
        len(PACKED["labels-ubyte.gz"]),
        len(PACKED["labels-ubyte.gz"]),
    )
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)  # no temporary file stays behind
    for name in PACKED:
        (folder / name).unlink()
    assert fetch("mnist", tmp_path / "data", base_url=url) == paths


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"other"), "MD5 .*, expected"),
        (PACKED["labels-ubyte.gz"][:-9], "damaged or truncated|MD5"),
        (b"<html>log in first</html>", "damaged or truncated|MD5"),
        (None, "404"),
    ],
    ids=["another file", "truncated", "a web page", "absent"],  # gzip's bytes hold the time
)
def test_wrong_files_never_arrive(
    tmp_path: Path, served: tuple[str, Path], content: bytes | None, message: str
) -> None:
    url, folder = served
    (folder / "labels-ubyte.gz").unlink()
    if content is not None:
        (folder / "labels-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        fetch("mnist", tmp_path, base_url=url)
    assert f"{url}/labels-ubyte.gz" in str(caught.value)
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == ["images-ubyte.gz"]


def test_a_wrong_file_is_replaced(tmp_path: Path, served: tuple[str, Path]) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "labels-ubyte.gz").write_bytes(b"damaged")
    paths = fetch("mnist", tmp_path, base_url=served[0])
    assert paths[1].read_bytes() == PACKED["labels-ubyte.gz"]


def test_sizes_are_bounded(
    tmp_path: Path, served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_UNPACKED", 10)
    with pytest.raises(DataError, match="unpacks to more than 10 bytes"):
        fetch("mnist", tmp_path, base_url=served[0])
    monkeypatch.setattr(module, "LARGEST_DOWNLOAD", 10)
    with pytest.raises(DataError, match=": more than 10 bytes"):
        fetch("mnist", tmp_path, base_url=served[0])


@pytest.mark.parametrize("name", sorted({*dataset_names()} - {"digits", *fetchable_names()}))
def test_what_is_not_fetched_says_where_it_is_and_where_it_goes(name: str, tmp_path: Path) -> None:
    """The places are those that the reader looks in, which says the same."""
    with pytest.raises(ConfigError, match="get it from https://") as told:
        fetch(name, tmp_path)
    with pytest.raises(DataError) as missed:
        load_dataset(name, "train", root=tmp_path)
    home = str(told.value).partition("get it from ")[2].partition(" and put")[0]
    assert f"Get it from {home} and put it there" in str(missed.value)
    for place in str(told.value).partition("put it there: ")[2].split(" or "):
        assert place in str(missed.value)


def test_what_cannot_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="known: fashion-mnist, mnist"):
        fetch("cifar", tmp_path)
    with pytest.raises(ConfigError, match="comes with scikit-learn"):
        fetch("digits", tmp_path)
    with pytest.raises(ConfigError, match="must start with http"):
        fetch("mnist", tmp_path, base_url="file:///etc/")
    with pytest.raises(DataError, match=r"cannot fetch images-ubyte\.gz: .*refused"):
        fetch("mnist", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"copy images-ubyte\.gz, labels-ubyte\.gz into") as caught:
        fetch("mnist", tmp_path)
    assert str(tmp_path / "mnist") in str(caught.value)
    assert "another server with --mirror" in caught.value.spelled(lambda _: "--mirror")
    with pytest.raises(DataError, match="cannot create"):
        fetch("mnist", tmp_path / "file")

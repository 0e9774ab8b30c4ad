"""Feed mutated files and configurations to everything that reads one.

    python tests/hostile/fuzz.py --inputs 20000

Honest files of every kind are made once, then changed: bits flipped, bytes cut out, repeated and
overwritten, and pieces spliced in that attackers use (pickles that run code, huge numbers, paths
that climb out, NaN). Every input has to be read, or refused with one of dpsd's own errors; nothing
may run, be written outside or to standard output, or take memory beyond a bound. Inputs are tried
in forked children, so that a reader that dies or hangs is told apart from one that refuses. Prints
a JSON object of counts.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from safetensors.torch import save_file
from transformers import ViTConfig, ViTForImageClassification

import dpsd
from dpsd.config.base import read_toml, to_toml
from dpsd.config.transcription import TranscriptionConfig
from dpsd.datasets import load_dataset
from dpsd.datasets.public_images import read_public
from dpsd.errors import DpsdError
from dpsd.federated.client.folder import ClientFolder
from dpsd.federated.client.plan import AnswerPlan
from dpsd.federated.client.respondent import Respondent
from dpsd.federated.requests import Hello, Request
from dpsd.models import build_classifier, build_generator
from dpsd.privacy.records.comparison import difference
from dpsd.privacy.records.ledger import Ledger
from dpsd.privacy.records.teacher_budget import TeacherBudget
from dpsd.results.export import export_student
from dpsd.runs.directory import RunDirectory
from dpsd.runs.models import load_checkpoint
from dpsd.teachers.directory import TeacherRecord, save_teacher
from dpsd.teachers.sharding import Shards
from dpsd.teachers.weights import read_weights
from dpsd.training.ensemble import train_ensemble

SHAPE = (1, 8, 8)
#: Beyond what a child holds when it starts.
MEMORY = 2 << 30
SECONDS = 60
BATCH = 25
_NUMBERS = (b"0", b"9", b"-1", b"99999999999", b"1e9", b"true")


@dataclass(frozen=True)
class Kind:
    """A kind of input: an honest file (or tree), what to change in it, and how it is read."""

    name: str
    folder: Path
    changed: str
    read: Callable[[Path], object]
    #: How many of a thousand inputs are of this kind; those that are slow to read are fewer.
    weight: int = 60


class Payload:
    """Runs code when unpickled: makes the file that the fuzzer looks for."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def tokens(mark: Path) -> list[bytes]:
    """Pieces that attackers splice in."""
    return [
        pickle.dumps(Payload(str(mark))),
        b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.",
        b"../../../../../../../.." + str(mark).encode(),
        b"__import__('os').system('touch " + str(mark).encode() + b"')",
        b"9999999999999999999",
        b"-1",
        b"NaN",
        b"1e400",
        b"null",
        b"[" * 3000,
        b'{"a":' * 2000,
        b"\x00" * 64,
        struct.pack("<Q", 2**63 - 1),
        struct.pack(">I", 0xFFFFFFFF),
        b"'; DROP TABLE runs; --",
        "\u202e\ud7ff".encode(),
    ]


def mutated(content: bytes, chance: random.Random, pieces: list[bytes]) -> bytes:
    """A changed copy."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            data += chance.choice(pieces)
        at = chance.randrange(len(data))
        # Headers decide most: half of the changes are near the start.
        if chance.random() < 0.5:
            at = chance.randrange(min(len(data), 300))
        until = min(len(data), at + chance.choice((1, 2, 4, 8, 64, 1024)))
        how = chance.randrange(7)
        if how == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            data[at:until] = chance.randbytes(until - at)
        elif how == 2:
            del data[at:until]
        elif how == 3:
            data[at:at] = data[at:until] * chance.randrange(1, 20)
        elif how == 4:
            piece = chance.choice(pieces)
            data[at : at + len(piece) if chance.random() < 0.5 else at] = piece
        elif how == 5:
            del data[at:]
        else:
            digits = [i for i, byte in enumerate(data[:4000]) if 48 <= byte <= 57]
            if digits:
                at = chance.choice(digits)
                data[at : at + 1] = chance.choice(
                    (b"0", b"9", b"-1", b"99999999999", b"1e9", b"true")
                )
    return bytes(data)


def kinds_below(root: Path) -> list[Kind]:
    """Every kind of input, of the honest files that :func:`make_honest_files` makes there."""
    kinds = [
        Kind(f"teacher: {name}", root / "teacher", name, dpsd.load_teacher)
        for name in ("teacher.safetensors", "teacher.json")
    ]
    kinds.append(Kind("ensemble", root / "ensemble", "shards.safetensors", dpsd.load_teacher))
    for name in ("weights.pt", "weights.safetensors"):
        kinds.append(Kind(f"weights: {name}", root / "weights", name, _read(name, read_weights)))
    for name, weight in (("teacher.pt2", 12), ("teacher.onnx", 40)):
        reader = _read(name, dpsd.load_teacher)
        kinds.append(Kind(f"program: {name}", root / "programs", name, reader, weight))
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        kinds.append(Kind(f"snapshot: {name}", root / "snapshot", name, _read_snapshot, 20))
    for name in (
        "config.toml",
        "student.json",
        "ledger.jsonl",
        "certificate.json",
        "checkpoint.safetensors",
        "metrics.jsonl",
        "student.safetensors",
        "releases/round-0001.safetensors",
    ):
        kinds.append(Kind(f"run: {name}", root / "run", name, _read_run))
    for name in ("client.toml", "ledger.jsonl", "answers.sqlite", "certificate.json"):
        kinds.append(Kind(f"client: {name}", root / "client", name, _read_client, 30))
    for name, reader, weight in (("teacher", _ask_module, 40), ("student", _train_module, 8)):
        kinds.append(Kind(f"module: {name}", root / "module", "seed", reader, weight))
    kinds.append(Kind("budget", root / "budget", "budget.jsonl", _read_budget))
    settings = _read("config.toml", _read_config)
    kinds.append(Kind("settings", root / "settings", "config.toml", settings, 120))
    for data, name in (
        ("mnist", "mnist/t10k-images-idx3-ubyte.gz"),
        ("mnist", "mnist/t10k-labels-idx1-ubyte.gz"),
        ("fashion-mnist", "fashion-mnist/t10k-images-idx3-ubyte"),
        ("fashion-mnist", "fashion-mnist/t10k-labels-idx1-ubyte"),
        ("medmnist:pathmnist", "medmnist/pathmnist.npz"),
    ):
        kinds.append(Kind(f"data: {name}", root / "data", name, _read_data(data)))
    public = "medmnist/pathmnist.npz"
    kinds.append(Kind("public images", root / "data", public, _read(public, _read_public)))
    cifar = "cifar-10-binary.tar.gz"
    kinds.append(Kind(f"data: {cifar}", root / "cifar", cifar, _read_data("cifar10"), 10))
    for name in ("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt"):
        changed = f"celeba/{name}"
        reader = _read_data("celeba-gender")
        kinds.append(Kind(f"data: {name}", root / "faces", changed, reader, 40))
    for name in ("one.png", "two.tif", "three.dcm"):
        changed = f"pets/train/cat/{name}"
        kinds.append(Kind(f"data: {name}", root / "folder", changed, _read_folder, 40))
    return kinds


def make_honest_files(root: Path) -> None:
    """One of everything."""
    for name in (
        "weights",
        "programs",
        "ensemble",
        "settings",
        "cifar",
        "data",
        "budget",
        "module",
    ):
        (root / name).mkdir(parents=True)
    (root / "module" / "seed").write_text("whatever bytes are here decide what the module is like")
    module = build_classifier("lenet5", input_shape=SHAPE, num_classes=3, seed=0).eval()
    record = TeacherRecord(model="lenet5", input_shape=SHAPE, num_classes=3)
    save_teacher(root / "teacher", module, record)

    digits = load_dataset("digits", "train")
    few = replace(digits, images=digits.images[:60], labels=digits.labels[:60])
    shards = Shards.assign(few, teachers=3, seed=0)
    shards.save(root / "ensemble")
    record = TeacherRecord(model="scattering", input_shape=SHAPE, num_classes=10, members=3)
    save_teacher(root / "ensemble", train_ensemble(few, shards), record)

    torch.save(module.state_dict(), root / "weights" / "weights.pt")
    save_file(module.state_dict(), root / "weights" / "weights.safetensors")

    def thirds(images: torch.Tensor) -> torch.Tensor:
        return 20 * images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)

    run = dpsd.transcribe(
        dpsd.load_teacher(
            thirds,
            input_shape=SHAPE,
            scores="logits",
            name="thirds",
            class_names="cat,dog,eel",
        ),
        student="lenet5",
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=2.0, adjacency="round"),
        out=root / "run",
        budget_file=root / "budget" / "budget.jsonl",
        recipe=dpsd.Recipe(rounds=2, queries=40, generator_steps=1, device="cpu"),
    )
    client = Respondent(
        dpsd.load_teacher(thirds, input_shape=SHAPE, scores="logits", name="thirds"),
        mechanism=dpsd.RandomizedResponse(),
        target=dpsd.Budget(epsilon=2.0, adjacency="response"),
        plan=AnswerPlan(rounds=2, queries=40),
        directory=root / "client",
    )
    client.greet(Hello(federation="f00d", shape=SHAPE, num_classes=3))
    shown = torch.randint(256, (40, *SHAPE), dtype=torch.uint8)
    client.answer(Request(federation="f00d", number=1, deadline=1e12, images=shown))
    _make_snapshot(root / "snapshot")
    for suffix in ("onnx", "pt2"):
        export_student(run.directory, root / "programs" / f"teacher.{suffix}")
    config = TranscriptionConfig(teacher="teacher/", epsilon=1.0, cap="8,1e-5,round", candidates=3)
    (root / "settings" / "config.toml").write_text(to_toml(config))
    _make_data_sets(root)


def _make_snapshot(folder: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "image_size": 8, "patch_size": 4, "num_channels": 1}
    config = ViTConfig(**sizes, id2label={0: "cat", 1: "dog", 2: "eel"})
    ViTForImageClassification(config).eval().save_pretrained(folder)
    steps = {"do_resize": True, "size": {"height": 8, "width": 8}, "do_rescale": True}
    steps |= {"rescale_factor": 1 / 255, "do_normalize": True}
    steps |= {"image_mean": [0.5], "image_std": [0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(steps))


def _make_data_sets(root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 8), dtype=np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2], np.uint8)
    for name, packed in (("mnist", True), ("fashion-mnist", False)):
        folder = root / "data" / name
        folder.mkdir()
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
            content = header + array.tobytes()
            path = folder / f"t10k-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    arrays = {f"{split}_images": pixels for split in ("train", "test")}
    arrays |= {f"{split}_labels": labels.reshape(-1, 1) for split in ("train", "test")}
    (root / "data" / "medmnist").mkdir()
    np.savez_compressed(root / "data" / "medmnist" / "pathmnist.npz", **arrays)  # type: ignore[arg-type]
    with tarfile.open(root / "cifar" / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = 10_000 * 3073
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    _write_celeba(root / "faces" / "celeba", pixels)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = root / "folder" / "pets" / split / label
            folder.mkdir(parents=True)
            Image.fromarray(pixels[0]).save(folder / "one.png")
            Image.fromarray(pixels[0].astype(np.uint16)).save(folder / "two.tif")
            _write_dicom(folder / "three.dcm", pixels[0])


def _write_celeba(folder: Path, pixels: np.ndarray) -> None:
    """Six faces in the layout of CelebA's publishers."""
    folder.mkdir(parents=True)
    files = [f"{number:06d}.jpg" for number in range(1, 7)]
    rows = [f"{file} {1 - 2 * (row % 2)} -1" for row, file in enumerate(files)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["6", "Male Bald", *rows]) + "\n")
    partition = "".join(f"{file} {row % 3}\n" for row, file in enumerate(files))
    (folder / "list_eval_partition.txt").write_text(partition)
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file, image in zip(files, pixels, strict=True):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "JPEG")
            archive.writestr(f"img_align_celeba/{file}", content.getvalue())


def _write_dicom(path: Path, pixels: np.ndarray) -> None:
    """A grey picture of 8 bits, seen through a window."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.RescaleSlope, data.RescaleIntercept = 1, -100
    data.WindowCenter, data.WindowWidth = 20, 200
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)


def _read(name: str, reader: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: reader(folder / name)


def _read_snapshot(folder: Path) -> object:
    return dpsd.load_teacher(f"hf:{folder}")


class OddModule(torch.nn.Module):
    """A classifier that is odd in up to three ways, which some bytes decide."""

    def __init__(self, decided_by: bytes) -> None:
        super().__init__()
        chance = random.Random(decided_by)
        self.before = chance.choice([*_BEFORE, *[_as_it_is] * len(_BEFORE)])
        self.after = chance.choice([*_AFTER, *[_as_it_is] * len(_AFTER)])
        self.views = chance.random() < 0.5
        outputs = chance.choice((1, 2, 3, 3, 3, 3, 100))
        self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.last = torch.nn.Linear(256, outputs)
        self.unused = torch.nn.Linear(4, 4)
        if chance.random() < 0.1:
            self.last.weight = torch.nn.Parameter(self.last.weight * float("nan"))
        self.to(chance.choice([torch.float32, torch.float32, torch.float64, torch.float16]))
        self.requires_grad_(chance.random() < 0.9)

    def forward(self, images: torch.Tensor) -> object:
        """Answer oddly."""
        found = self.conv(self.before(images)).relu()
        found = found.view(len(found), -1) if self.views else found.flatten(1)
        return self.after(self.last(found))


def _as_it_is(value: torch.Tensor) -> torch.Tensor:
    return value


def _raise(value: torch.Tensor) -> torch.Tensor:
    raise OddError(*value.shape)


class OddError(BaseException):
    """Not an exception that anybody expects."""


def _exit(_: torch.Tensor) -> torch.Tensor:
    sys.exit(3)


_BEFORE: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(lambda x: x[:1], lambda x: x.sub_(1), lambda x: x.permute(0, 3, 1, 2), lambda x: x.int()),
    *(lambda x: x.view(-1, 1, 8, 8), lambda x: x.double(), lambda x: x / 0, _raise, _exit),
    lambda x: x[x.flatten(1).mean(1) > 0.5],
]
_AFTER: list[Callable[[torch.Tensor], object]] = [
    *(lambda x: (x, x), lambda x: {"logits": x}, lambda x: [], lambda x: None, lambda x: x[0]),
    *(lambda x: x.argmax(1), lambda x: x.sigmoid(), lambda x: x.softmax(-1), lambda x: x.numpy()),
    *(lambda x: x.detach(), lambda x: x.log(), lambda x: x.half(), lambda x: x > 0, len, _raise),
    *(lambda x: x[..., None], lambda x: x[:, :0], lambda x: x.to("meta"), lambda x: x.to_sparse()),
    *(lambda x: torch.cat([x, x]), lambda x: x.cfloat(), lambda x: "words", lambda x: x + 1e38),
]


def _ask_module(folder: Path) -> object:
    module = OddModule((folder / "seed").read_bytes())
    teacher = dpsd.load_teacher(module, input_shape=SHAPE)
    return teacher.ask(torch.rand(3, *SHAPE), query_batch=0)


def _train_module(folder: Path) -> object:
    def thirds(images: torch.Tensor) -> torch.Tensor:
        return 20 * images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)

    return dpsd.transcribe(
        dpsd.load_teacher(thirds, input_shape=SHAPE, scores="logits"),
        student=OddModule((folder / "seed").read_bytes()),
        mechanism=dpsd.RandomizedResponse(),
        budget=dpsd.Budget(epsilon=6.0, adjacency="round"),
        out=folder / "new-run",
        recipe=dpsd.Recipe(rounds=1, queries=32, batch_size=16, generator_steps=1, device="cpu"),
        budget_file=folder / "new-budget.jsonl",
    )


def _read_data(name: str) -> Callable[[Path], object]:
    return lambda folder: load_dataset(name, "test", root=folder)


def _read_public(path: Path) -> object:
    return read_public(str(path), SHAPE)


def _read_folder(folder: Path) -> object:
    return load_dataset(f"folder:{folder / 'pets'}", "train")


def _read_config(path: Path) -> object:
    config = TranscriptionConfig(**read_toml(path))
    return config.recipe, config.privacy.mechanism()


def _read_budget(folder: Path) -> object:
    budget = TeacherBudget(folder / "budget.jsonl", teacher="callable:thirds")
    return budget.spent(delta=1e-5), budget.cap()


def _read_run(folder: Path) -> object:
    run = RunDirectory.open(folder)
    student, generator = run_models(run)
    load_checkpoint(run, student=student, generator=generator)
    run.stored_releases(1)
    run.metrics()
    run.student()
    certificate = run.certify()
    difference(
        certificate, (folder / "certificate.json").read_text(encoding="utf-8", errors="replace")
    )
    return Ledger(folder / "ledger.jsonl").exposure()


def _read_client(folder: Path) -> object:
    client = ClientFolder.open(folder)
    stored, _ = client.stored()
    client.reconcile()
    return difference(client.certify(), stored)


def run_models(run: RunDirectory) -> tuple[torch.nn.Module, torch.nn.Module]:
    """What a resumed run fills."""
    run.config()
    return (
        build_classifier("lenet5", input_shape=SHAPE, num_classes=3),
        build_generator("dcgan", input_shape=SHAPE),
    )


def attempt(kind: Kind, seed: int, scratch: Path, mark: Path) -> str:
    """Change one file, read it; what came of it."""
    chance = random.Random(seed)
    copy = scratch / "copy"
    shutil.copytree(kind.folder, copy)
    path = copy / kind.changed
    path.write_bytes(mutated(path.read_bytes(), chance, tokens(mark)))
    try:
        kind.read(copy)
        outcome = "read"
    except DpsdError:
        outcome = "refused"
    finally:
        shutil.rmtree(copy)
    if mark.exists():
        raise AssertionError("code was run")
    sys.stdout.flush()
    if os.fstat(1).st_size:
        os.ftruncate(1, 0)
        raise AssertionError("a line was printed among the results")
    return outcome


def try_batch(inputs: list[tuple[Kind, int]], scratch: Path, mark: Path) -> Counter[str]:
    """In a child with bounded memory and time; findings come back by name."""
    report = scratch / "report"
    report.unlink(missing_ok=True)
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        with Path(os.devnull).open("w") as nowhere, (scratch / "printed").open("a") as printed:
            os.dup2(nowhere.fileno(), 2)
            os.dup2(printed.fileno(), 1)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        with report.open("a", buffering=1) as lines:
            for kind, seed in inputs:
                lines.write(json.dumps([kind.name, seed]) + "\n")
                signal.alarm(SECONDS)
                try:
                    outcome = attempt(kind, seed, scratch, mark)
                except BaseException as error:  # noqa: BLE001 - that is what is looked for
                    outcome = f"FOUND {type(error).__name__}: {str(error)[:200]}"
                lines.write(json.dumps(outcome) + "\n")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    counts: Counter[str] = Counter()
    told = [json.loads(line) for line in report.read_text().splitlines()]
    for tried, outcome in zip(told[::2], told[1::2], strict=False):
        counts[outcome if outcome in ("read", "refused") else f"{outcome} in {tried}"] += 1
    if status:
        counts[f"FOUND a reader that died ({status}) in {told[-1]}"] += 1
        shutil.rmtree(scratch / "copy", ignore_errors=True)
    return counts


def files_below(folder: Path) -> set[str]:
    """What is there, to see whether anything else appears."""
    return {str(path) for path in folder.rglob("*")}


def main() -> None:
    """Try as many inputs as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", help="kinds whose names begin so")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["XDG_DATA_HOME"] = str(root / "user-data")
        # Honest files are made in a child: this process must not have computed anything.
        kinds_made = os.fork()
        if kinds_made == 0:
            make_honest_files(root / "honest")
            os._exit(0)
        assert os.waitpid(kinds_made, 0)[1] == 0
        kinds = kinds_below(root / "honest")
        if arguments.only:
            kinds = [kind for kind in kinds if kind.name.startswith(arguments.only)]
        scratch, mark = root / "scratch", root / "ran"
        scratch.mkdir()
        before = files_below(root / "honest")
        chosen = chance.choices(kinds, [kind.weight for kind in kinds], k=arguments.inputs)
        inputs = [(kind, chance.getrandbits(48)) for kind in chosen]
        counts: Counter[str] = Counter()
        for start in range(0, len(inputs), BATCH):
            counts += try_batch(inputs[start : start + BATCH], scratch, mark)
        assert files_below(root / "honest") == before
        assert {path.name for path in root.iterdir()} <= {"honest", "scratch", "user-data"}
    findings = sorted(outcome for outcome in counts if outcome.startswith("FOUND"))
    tried = counts["read"] + counts["refused"] + len(findings)
    print(
        json.dumps(
            {
                "seed": seed,
                "kinds": len(kinds),
                "inputs": tried,
                "read": counts["read"],
                "refused": counts["refused"],
                "findings": findings,
            },
            indent=1,
        )
    )
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()

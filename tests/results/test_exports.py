"""Exports: every format answers as the student does, and says whose answers these are."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import dpsd
from dpsd.errors import ConfigError, RunError
from dpsd.models import build_classifier
from dpsd.models.names import model_names
from dpsd.results.conversion import converted
from dpsd.results.destinations import Destination
from dpsd.results.export import export_student
from dpsd.results.hub import write_hub_folder
from dpsd.results.synthetic import synthesise, write_synthetic
from dpsd.runs.directory import RunDirectory
from dpsd.teachers import load_teacher

SHAPE = (1, 8, 8)
#: Words that Markdown, HTML, YAML and tables could take for markup.
NAMES = ("cat|dog", "<script>alert(1)</script>", "a: *b* `c` {{ d }}")

#: A side of an image that every architecture takes, and architectures that are slow to convert.
SIDE = 32
SLOW = {"resnet18", "resnet20", "resnet34", "resnet50", "wrn40-2", "mobilenetv2", "vgg11"}
SLOW |= {"cnn-wide"}


def transcribed(out: Path, *, noise: int | None = None, names: tuple[str, ...] = NAMES) -> Any:
    def scores(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3]

    mechanism: dpsd.Mechanism = dpsd.RandomizedResponse()
    if noise is not None:
        from dpsd.privacy.randomness import ReproducibleNoise

        mechanism = mechanism.with_noise(ReproducibleNoise(seed=noise))
    return dpsd.transcribe(
        load_teacher(scores, input_shape=SHAPE, scores="logits", class_names=names),
        student="lenet5",
        mechanism=mechanism,
        budget=dpsd.Budget(epsilon=2.0, adjacency="round"),
        recipe=dpsd.Recipe(rounds=2, queries=40, generator_steps=1, epochs=1),
        out=out,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run. Not to be changed."""
    directory = transcribed(tmp_path_factory.mktemp("runs") / "run").directory
    assert isinstance(directory, RunDirectory)
    return directory


@pytest.fixture(scope="module")
def hub(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the Hub. Not to be changed."""
    folder = tmp_path_factory.mktemp("hub") / "student"
    written = export_student(run, f"hf:{folder}")
    assert sorted(folder.iterdir()) == sorted(written)
    return folder


def certificate_hash(run: RunDirectory) -> str:
    return hashlib.sha256((run.path / "certificate.json").read_bytes()).hexdigest()


def test_a_format_alone_stands_for_a_file_here(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pt2", "safetensors"):
        written = export_student(run, name)
        assert written[0] == Path(f"student.{name}")
        assert all(path.is_file() for path in written)


@pytest.mark.parametrize("to", ["", "student", "student.pkl", "hf:", ".onnx/", "HF:x"])
def test_other_destinations_are_refused(to: str) -> None:
    with pytest.raises(ConfigError, match=r"^to: .*does not name a format"):
        Destination.of(to)


@pytest.mark.parametrize("name", sorted(set(model_names()) - SLOW))
@pytest.mark.parametrize("suffix", [pytest.param("onnx", marks=pytest.mark.thorough), "pt2"])
def test_architectures_answer_alike_in_batches_of_any_size(
    name: str, suffix: str, tmp_path: Path
) -> None:
    shape = (3, SIDE, SIDE)
    module = build_classifier(name, input_shape=shape, num_classes=4, seed=0).eval()
    path = tmp_path / f"student.{suffix}"
    path.write_bytes(converted(module, shape, {"class_names": list("abcd")}, path))
    teacher = load_teacher(path, scores="logits")
    assert teacher.class_names == ("a", "b", "c", "d")
    for size in (1, 5):
        images = torch.rand(size, *shape)
        with torch.no_grad():
            expected = module(images)
        found = teacher._answers(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_onnx_states_classes_and_certificate(run: RunDirectory, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    export_student(run, tmp_path / "student.onnx")
    model = onnx.load(str(tmp_path / "student.onnx"))
    stated = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(stated["class_names"]) == list(NAMES)
    assert stated["certificate_sha256"] == certificate_hash(run)
    (images,) = model.graph.input
    assert images.type.tensor_type.shape.dim[0].dim_param


def test_weights_and_programs_state_them_too(run: RunDirectory, tmp_path: Path) -> None:
    export_student(run, tmp_path / "student.safetensors")
    with safe_open(tmp_path / "student.safetensors", framework="pt") as file:
        header = file.metadata()
    stated = json.loads(header["dpsd"])
    assert header["format"] == "pt"
    assert stated == json.loads((tmp_path / "student.json").read_text())
    weights = load_file(tmp_path / "student.safetensors")
    assert all(torch.equal(weights[n], part) for n, part in run.student().state_dict().items())
    export_student(run, tmp_path / "student.pt2")
    extra = {"dpsd.json": ""}
    torch.export.load(tmp_path / "student.pt2", extra_files=extra)
    assert json.loads(extra["dpsd.json"]) == stated
    assert stated["class_names"] == list(NAMES)
    assert stated["certificate_sha256"] == certificate_hash(run)
    first = (tmp_path / "student.safetensors").read_bytes()
    export_student(run, tmp_path / "student.safetensors")
    assert (tmp_path / "student.safetensors").read_bytes() == first


def test_an_exported_program_can_be_a_teacher(hub: Path) -> None:
    assert load_teacher(hub / "model.pt2").class_names == NAMES
    with pytest.raises(dpsd.TeacherError, match=r"give its program, .*model\.pt2"):
        load_teacher(f"hf:{hub}")


def test_the_folder_has_what_the_hub_expects(hub: Path, run: RunDirectory) -> None:
    config = json.loads((hub / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["lenet5"]
    assert config["num_labels"] == len(config["id2label"]) == 3
    assert tuple(config["id2label"].values()) == NAMES
    assert [config["label2id"][name] for name in NAMES] == [0, 1, 2]
    assert (config["num_channels"], config["image_size"]) == (1, [8, 8])
    assert config["dpsd"]["certificate_sha256"] == certificate_hash(run)
    assert (hub / "certificate.json").read_bytes() == (run.path / "certificate.json").read_bytes()
    steps = json.loads((hub / "preprocessor_config.json").read_text())
    assert steps["size"] == {"height": 8, "width": 8}
    assert steps["do_normalize"] is False
    assert steps["rescale_factor"] == pytest.approx(1 / 255)


_WITHOUT_DPSD = """
import sys
sys.modules["dpsd"] = None  # so that importing it fails
try:
    import dpsd
except ImportError:
    pass
else:
    raise SystemExit("dpsd can be imported")
"""


def test_the_cards_snippet_runs_without_dpsd(hub: Path, run: RunDirectory) -> None:
    card = (hub / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    asked = (
        "\nimport numpy\nnumpy.save('logits.npy', model(torch.full((3, 1, 8, 8), 0.25)).detach())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", _WITHOUT_DPSD + snippet + asked],
        cwd=hub,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert all(name in NAMES for name in ast.literal_eval(done.stdout))
    found = torch.from_numpy(np.load(hub / "logits.npy", allow_pickle=False))
    (hub / "logits.npy").unlink()
    expected = run.student()(torch.full((3, *SHAPE), 0.25))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_the_card_says_what_was_spent_and_what_is_not_promised(
    hub: Path, run: RunDirectory
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    card = huggingface_hub.ModelCard.load(hub / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.eval_results is None
    certificate = run.certify()
    for expected in (
        *(certificate.headline, certificate.limits, certificate.unit, certificate.noise),
        *(certificate_hash(run), "randomized-response", "Whoever runs dpsd is trusted"),
        *("| `response` |", "| `round` |", "| `teacher` |", "## Limitations", "Not evaluated"),
    ):
        assert expected in card.text
    # Names are shown as they are, and are no markup.
    assert "cat\\|dog" in card.text
    assert "&lt;script&gt;" in card.text
    assert "<script>" not in card.text
    # A table's rows follow each other, or they are no table.
    assert re.search(r"ε \|\n\| ---.*\n\| `response`.*\n\| `round`.*\n\| `teacher`", card.text)
    # Every number behind "ε =" stands with its adjacency.
    assert all("adjacency `" in line for line in card.text.splitlines() if "ε =" in line)


def evaluated(run: RunDirectory, path: Path, /, **changed: Any) -> Path:
    """What ``dpsd evaluate --json`` prints, for a data set that is made up."""
    from dpsd.datasets import LabelledImages
    from dpsd.results.evaluation import evaluate

    data = LabelledImages(
        images=torch.randint(0, 256, (12, *SHAPE), dtype=torch.uint8),
        labels=torch.arange(12) % 3,
        class_names=("0", "1", "2"),
        name="scans",
        split="test",
    )
    measured = evaluate(run, data).to_dict()
    assert [row["name"] for row in measured["classes"]] == list(NAMES)
    path.write_text(json.dumps(measured | changed))
    return path


def test_an_evaluation_is_published_where_it_is_given(run: RunDirectory, tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    measured = evaluated(run, tmp_path / "measured.json", student_accuracy=0.75)
    export_student(run, f"hf:{tmp_path / 'hub'}", evaluations=[measured])
    card = huggingface_hub.ModelCard.load(tmp_path / "hub" / "README.md")
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.dataset_split) == ("scans", "test")
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.75)
    assert "| scans | test | 12 | 75.00% |" in card.text
    assert "not privatised" in card.text
    assert "Not evaluated" not in card.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"student": "sha256:00"}, "about another student"),
        ({"run": "other"}, "about another student"),
        ({"student_accuracy": 1.5}, "student_accuracy = 1.5"),
        ({"student_accuracy": True}, "does not state student_accuracy"),
        ({"images": None}, "does not state images"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(
    changed: dict[str, Any], said: str, run: RunDirectory, tmp_path: Path
) -> None:
    measured = evaluated(run, tmp_path / "measured.json", **changed)
    with pytest.raises(ConfigError, match=f"^evaluation: .*{said}"):
        export_student(run, f"hf:{tmp_path / 'hub'}", evaluations=[measured])
    with pytest.raises(ConfigError, match="evaluation is for the model card"):
        export_student(run, tmp_path / "student.pt2", evaluations=[measured])
    assert not (tmp_path / "hub" / "README.md").exists()


def test_data_with_the_classes_in_another_order_is_refused(tmp_path: Path) -> None:
    from dpsd.datasets import LabelledImages
    from dpsd.results.evaluation import evaluate

    directory = transcribed(tmp_path / "run", names=("cat", "dog", "eel")).directory
    data = LabelledImages(
        images=torch.zeros((3, *SHAPE), dtype=torch.uint8),
        labels=torch.arange(3),
        class_names=("dog", "cat", "eel"),
        name="pets",
        split="test",
    )
    with pytest.raises(ConfigError, match="calls class 0 'dog', and the run calls it 'cat'"):
        evaluate(directory, data)


def test_a_card_of_reproducible_noise_says_that_nothing_is_private(tmp_path: Path) -> None:
    run = transcribed(tmp_path / "run", noise=1).directory
    export_student(run, f"hf:{tmp_path / 'hub'}")
    card = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert "**NOT PRIVATE: reproducible noise." in card


def test_a_certificate_that_was_changed_is_not_published(tmp_path: Path) -> None:
    run = transcribed(tmp_path / "run").directory
    path = run.path / "certificate.json"
    path.write_text(path.read_text().replace('"round": 2', '"round": 1', 1))
    with pytest.raises(RunError, match="not published"):
        write_hub_folder(run, run.student(), tmp_path, evaluations=[])
    assert not (tmp_path / "README.md").exists()


def test_an_unfinished_run_has_no_card(tmp_path: Path) -> None:
    run = transcribed(tmp_path / "run").directory
    lines = run.ledger.path.read_text().splitlines(keepends=True)
    run.ledger.path.write_text("".join(lines[:-1]))
    with pytest.raises(RunError, match="is not finished, so a model card cannot say"):
        export_student(RunDirectory.open(run.path), f"hf:{tmp_path / 'hub'}")


def test_samples_say_what_their_labels_are_called(run: RunDirectory, tmp_path: Path) -> None:
    arrays, _ = write_synthetic(synthesise(run, 10), tmp_path)
    with np.load(arrays, allow_pickle=False) as stored:
        assert tuple(stored["class_names"].tolist()) == NAMES
        assert stored["labels"].max() < 3

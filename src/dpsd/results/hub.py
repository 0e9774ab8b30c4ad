"""A folder with the student as the Hugging Face Hub has models; needs the extra ``huggingface``.

``model.safetensors`` and ``model.pt2`` hold the same weights, the latter with the program that runs
them, which plain torch loads. ``config.json`` and ``preprocessor_config.json`` say what goes in and
comes out, and ``README.md`` is the model card. Nothing is uploaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dpsd.errors import ConfigError, RunError, Setting
from dpsd.privacy.records.certificate import Certificate
from dpsd.privacy.records.comparison import difference
from dpsd.reporting.evaluations import is_about, read_evaluation
from dpsd.reporting.model_card import model_card
from dpsd.results import export
from dpsd.runs.directory import RunDirectory
from dpsd.shell import command_line
from dpsd.storage.files import replacing, write_text
from dpsd.teachers.snapshot import CONFIG_FILE, PREPROCESSOR_FILE, STUDENT_TYPE, WEIGHTS_FILE


def write_hub_folder(
    run: RunDirectory, module: nn.Module, folder: Path, *, evaluations: Sequence[Path]
) -> None:
    """Write the folder of a finished run's student.

    Args:
        run: the run.
        module: the student, in eval mode and float32.
        folder: the folder, which exists.
        evaluations: files that ``dpsd evaluate --json`` wrote about this student.

    Raises:
        ConfigError: the extra is not installed, or an evaluation is not about this student.
        RunError: the run is not finished, its certificate is not what its ledger says, or the disk
            is full.
    """
    certificate, content = _certified(run)
    measured = [_evaluation(path, certificate) for path in evaluations]
    stated = export.description(run)
    card = model_card(run, certificate, stated=stated, measured=measured)
    export.write_weights(run, module, folder / WEIGHTS_FILE)
    export.write_converted(run, module, folder / "model.pt2")
    _write_json(folder / CONFIG_FILE, _config(stated))
    _write_json(folder / PREPROCESSOR_FILE, _preprocessor(stated))
    with replacing(folder / "certificate.json") as temporary:
        temporary.write_bytes(content)
    write_text(folder / "README.md", card)


def _certified(run: RunDirectory) -> tuple[Certificate, bytes]:
    """The certificate of a finished run, and its file, once they were found to say the same."""
    path = run.path / "certificate.json"
    if not run.is_finished():
        raise RunError(
            f"{run.path} is not finished, so a model card cannot say what it spent: continue it "
            f"with {run.resuming}, or export to another format"
        )
    certificate = run.certify()
    try:
        content = path.read_bytes()
        different = difference(certificate, content.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if different is not None:
        see = command_line("dpsd", "certify", run.path)
        raise RunError(f"{path}, {different}: it is not published; see {see}")
    return certificate, content


def _evaluation(path: Path, certificate: Certificate) -> dict[str, Any]:
    """Read an evaluation of the student that the certificate names."""
    found = read_evaluation(path)
    if not is_about(found, certificate):
        raise ConfigError(
            *(Setting("evaluation"), f": {path} is about another student than this run's; "),
            "evaluate this run",
        )
    return found


def _config(stated: dict[str, Any]) -> dict[str, Any]:
    channels, height, width = stated["input_shape"]
    names = stated.get("class_names") or [str(label) for label in range(stated["num_classes"])]
    return {
        "model_type": STUDENT_TYPE,
        "architectures": [stated["student"]],
        "num_labels": stated["num_classes"],
        "id2label": {str(label): name for label, name in enumerate(names)},
        "label2id": {name: label for label, name in enumerate(names)},
        "num_channels": channels,
        "image_size": [height, width],
        "dtype": "float32",
        "dpsd": {name: stated[name] for name in ("run", "certificate_sha256") if name in stated},
    }


def _preprocessor(stated: dict[str, Any]) -> dict[str, Any]:
    """The student takes images in [0, 1] and normalises them itself."""
    channels, height, width = stated["input_shape"]
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "image_mean": [0.0] * channels,
        "image_std": [1.0] * channels,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

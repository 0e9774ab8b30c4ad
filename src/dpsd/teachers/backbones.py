"""Frozen public backbones: features that teachers and students are linear on.

A backbone is one of dpsd's own, which :mod:`dpsd.training.pretraining` trains on public images, or
the user's: a ``.pt2`` or ``.onnx`` file, or ``package.module:factory``. It takes float images
``(N, C, H, W)`` in [0, 1] and returns features, ``(N, F)`` or ``(N, M, h, w)``. Whoever uses one
keeps a copy beside the model, as ``features.safetensors``, ``features.pt2`` or ``features.onnx``,
and states its hash, so that no other backbone takes its place.

>>> import tempfile
>>> backbone = load_backbone("torch.nn:Flatten", input_shape=(1, 8, 8))
>>> with tempfile.TemporaryDirectory() as folder:
...     backbone.save(Path(folder))
...     kept_backbone(Path(folder), backbone.stated(), input_shape=(1, 8, 8)).name
'torch.nn:Flatten'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dpsd.devices.layout import answer_in_float32, hand_its_type
from dpsd.errors import ConfigError, Setting, TeacherError, reason
from dpsd.images.names import Shape
from dpsd.models.backbones import MADE_FOR, fitted, untrained_backbone
from dpsd.models.frozen import Frozen
from dpsd.models.names import BACKBONES
from dpsd.models.registry import probe
from dpsd.storage.files import replacing, save_tensors
from dpsd.teachers.archive import read_archive
from dpsd.teachers.exported import load_program
from dpsd.teachers.factory import build_from_factory
from dpsd.teachers.fingerprint import fingerprint_content, fingerprint_module
from dpsd.teachers.onnx import external_data_files, open_session
from dpsd.teachers.weights import fill_module, read_weights

#: What is known of the images that a backbone of the user's was trained on.
VOUCHED = "not on record; its user vouches that it is public"

#: The most that two computations of the same features may differ, of the largest feature.
_ROUNDING = 1e-3

_STEM = "features"
_WEIGHTS = f"{_STEM}.safetensors"

#: The files of which a directory has one if its model has a backbone.
FEATURES_FILES = (_WEIGHTS, f"{_STEM}.pt2", f"{_STEM}.onnx")


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A frozen public backbone.

    Args:
        name: the name that it was given by, without the folder of a file.
        module: maps float images ``(N, C, H, W)`` in [0, 1] to features, ``(N, F)`` or
            ``(N, M, h, w)``; in eval mode.
        source: the module whose weights are kept, which takes images of the shape that the
            backbone was made for; or the content of the file that was loaded.
        fingerprint: the hash of its content.
        trained_on: what it was trained on, in words.
    """

    name: str
    module: nn.Module
    source: nn.Module | bytes
    fingerprint: str
    trained_on: str = VOUCHED

    def stated(self) -> dict[str, str]:
        """Return what descriptions and certificates state of it: its name, its hash, its data."""
        return {"name": self.name, "hash": self.fingerprint, "trained_on": self.trained_on}

    def save(self, directory: Path) -> None:
        """Write a copy into a directory that exists.

        Raises:
            WriteError: the disk is full, or the directory cannot be written to.
        """
        if isinstance(self.source, nn.Module):
            # With metadata, as the format has no file of nothing for a backbone without weights.
            state = self.source.state_dict()
            save_tensors(directory / _WEIGHTS, state, metadata={"format": "pt"})
            return
        with replacing(directory / f"{_STEM}{Path(self.name).suffix}") as temporary:
            temporary.write_bytes(self.source)


def load_backbone(name: str, *, input_shape: Shape) -> Backbone:
    """Load a backbone of the user's.

    Args:
        name: the path of a ``.pt2`` or ``.onnx`` file, or ``package.module:factory``, which is
            called with ``input_shape`` if its signature names it.
        input_shape: the channels, height and width of the images that it will get.

    Raises:
        TeacherError: it cannot be loaded.
        ConfigError: it does not return features of images of that shape.
    """
    path = Path(name)
    if path.suffix == ".pt2":
        return _of_module(path.name, *_program(path, input_shape), input_shape=input_shape)
    if path.suffix == ".onnx":
        return _of_module(path.name, *_graph(path), input_shape=input_shape)
    module = _made(name, input_shape=input_shape)
    fingerprint = fingerprint_module(module)
    return _of_module(name, module, fingerprint, module, input_shape=input_shape)


def own_backbone(name: str, body: nn.Module, *, trained_on: str, input_shape: Shape) -> Backbone:
    """Return one of dpsd's own backbones, for images of any shape.

    Args:
        name: one of :data:`~dpsd.models.names.BACKBONES`.
        body: the trained network without its last layer, in eval mode.
        trained_on: what it was trained on, in words.
        input_shape: the channels, height and width of the images that it will get.
    """
    return Backbone(
        name=name,
        module=fitted(body, made_for=MADE_FOR[name], input_shape=input_shape),
        source=body,
        fingerprint=fingerprint_module(body),
        trained_on=trained_on,
    )


def unfilled_backbone(name: str, *, input_shape: Shape) -> nn.Module:
    """Return the module of one of dpsd's own backbones, whose weights are yet to be filled in.

    >>> len(unfilled_backbone("glyphs", input_shape=(1, 28, 28)).state_dict())
    30
    """
    return fitted(untrained_backbone(name), made_for=MADE_FOR[name], input_shape=input_shape)


def kept_backbone(directory: Path, stated: Mapping[str, Any], *, input_shape: Shape) -> Backbone:
    """Load the backbone that :meth:`Backbone.save` wrote to a directory.

    Args:
        directory: the directory.
        stated: what its description states, as :meth:`Backbone.stated` returned it.
        input_shape: the channels, height and width of the images that it will get.

    Raises:
        TeacherError: the file is missing or damaged, or holds another backbone, or the description
            states more of a user's backbone than dpsd can know.
    """
    name, wanted = str(stated["name"]), str(stated["hash"])
    trained_on = str(stated["trained_on"])
    if name not in BACKBONES and trained_on != VOUCHED:
        raise TeacherError(
            f"{directory} says what the features {name!r} were trained on, which dpsd knows of its "
            "own alone: copy the whole directory again"
        )
    path = directory / f"{_STEM}{Path(name).suffix}"
    if path.name in FEATURES_FILES and path.name != _WEIGHTS:
        found = load_backbone(str(path), input_shape=input_shape)
    else:
        path = directory / _WEIGHTS
        state = read_weights(path)
        if name in BACKBONES:
            body = untrained_backbone(name)
            fill_module(body, state, where=str(path))
            found = own_backbone(name, body, trained_on=trained_on, input_shape=input_shape)
        else:
            module = _made(name, input_shape=input_shape)
            fill_module(module, state, where=str(path))
            fingerprint = fingerprint_module(module)
            found = _of_module(name, module, fingerprint, module, input_shape=input_shape)
    if found.fingerprint != wanted:
        raise TeacherError(
            f"{path} holds other features ({found.fingerprint}) than those that its directory "
            f"names ({wanted}): copy the whole directory again"
        )
    return Backbone(
        name=name,
        module=found.module,
        source=found.source,
        fingerprint=wanted,
        trained_on=trained_on,
    )


def _of_module(
    name: str,
    module: nn.Module,
    fingerprint: str,
    source: nn.Module | bytes,
    *,
    input_shape: Shape,
) -> Backbone:
    """Check on noise that a module returns features, image by image, and that nothing changes it.

    If features depended on other images, or on earlier ones, a record would reach other teachers.
    """
    label = f"features {name!r}"
    images = torch.rand((3, *input_shape), generator=torch.Generator().manual_seed(0))
    images *= torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1, 1)  # of different statistics
    before = fingerprint_module(module)
    found = probe(module, images, label=label)
    is_shaped = found.ndim in (2, 4) and len(found) == len(images) and found.is_floating_point()
    if not is_shaped or not found.isfinite().all():
        raise ConfigError(
            f"{label} are {found.dtype} {tuple(found.shape)} for three images of shape "
            f"{input_shape}; finite numbers of shape (3, F) or (3, M, h, w) are needed"
        )
    alone = probe(module, images[:1], label=label)
    again = probe(module, images, label=label, seed=1)
    if not (_same(alone, found[:1]) and _same(again, found)):
        raise ConfigError(
            f"{label} of an image depend on other images, or on chance, by which a record would "
            "reach other teachers: put the module into eval mode before it is exported, or use "
            "neither statistics of a batch nor random numbers"
        )
    if fingerprint_module(module) != before:
        raise ConfigError(
            f"{label} change when they are computed, by which a record would reach other teachers: "
            "export the module in eval mode, or let its forward change no buffer"
        )
    return Backbone(name=name, module=module, source=source, fingerprint=fingerprint)


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether features differ by rounding at most."""
    largest = float(other.abs().max()) if other.numel() else 0.0
    return one.shape == other.shape and one.allclose(other, rtol=0.0, atol=_ROUNDING * largest)


def _made(name: str, *, input_shape: Shape) -> nn.Module:
    """Call a factory.

    Raises:
        TeacherError: it fails, or does not return a module.
    """
    made = build_from_factory(name, input_shape=input_shape)
    if not isinstance(made, nn.Module):
        raise TeacherError(f"features {name!r} are a {type(made).__name__}, not an nn.Module")
    hand_its_type(made)
    answer_in_float32(made)
    return made.eval()


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise TeacherError(f"there is no file {path}: check the path")
    try:
        return path.read_bytes()
    except OSError as error:
        raise TeacherError(f"{path} cannot be read: {reason(error)}") from None


def _program(path: Path, input_shape: Shape) -> tuple[nn.Module, str, bytes]:
    """Load a program, whose batch must be open."""
    content = _content(path)
    archive = read_archive(content, where=str(path))
    program = load_program(archive.content, torch.device("cpu"), path)
    taken = program.graph_signature.user_inputs
    examples = {node.name: node.meta.get("val") for node in program.graph.nodes}
    image = examples.get(str(taken[0])) if len(taken) == 1 else None
    if not isinstance(image, Tensor) or tuple(image.shape[1:]) != input_shape:
        raise ConfigError(
            Setting("features"), f": {path} does not take images of shape {input_shape} alone"
        )
    if isinstance(image.shape[0], int):
        raise ConfigError(
            Setting("features"),
            f": {path} takes batches of {image.shape[0]} only: export it with the batch dynamic",
        )
    # It refuses to be put into any mode, as it was exported in one.
    return Frozen(program.module()), archive.fingerprint, content


def _graph(path: Path) -> tuple[nn.Module, str, bytes]:
    """Open a graph, whose weights must be in the file itself."""
    content = _content(path)
    if external_data_files(path):
        raise TeacherError(f"{path} keeps weights beside itself: export it with them inside")
    return OnnxFeatures(path), fingerprint_content(content), content


class OnnxFeatures(nn.Module):
    """Features that ONNX Runtime computes on the CPU, without gradients.

    Args:
        path: the ``.onnx`` file, with one input and one output.

    Raises:
        TeacherError: it cannot be run, or has several inputs or outputs.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._session = open_session(path)
        ends = [*self._session.get_inputs(), *self._session.get_outputs()]
        if len(ends) != 2:
            raise TeacherError(f"{path} has not one input and one output: export it with these")
        self._input, self._output = (end.name for end in ends)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to features.

        Raises:
            ConfigError: gradients are wanted, or the module is exported.
        """
        mend = "give them as a .pt2 file instead"
        if torch.compiler.is_exporting():
            raise ConfigError(f"features in ONNX cannot be exported with a student: {mend}")
        if images.requires_grad and torch.is_grad_enabled():
            raise ConfigError(
                "features in ONNX have no gradients, which a generator needs: ",
                *(mend, ", or ", Setting("generator_steps"), " 0"),
            )
        array = images.detach().to("cpu", torch.float32).contiguous().numpy()
        (features,) = self._session.run([self._output], {self._input: array})
        return torch.from_numpy(features).to(images.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Nothing in it changes, and a session cannot be copied.
        return self

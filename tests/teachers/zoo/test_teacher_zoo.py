"""Teachers as people have them: each works, or one line names the mend before anything is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpsd.errors import TeacherError
from dpsd.privacy.answers import open_for_mechanism
from dpsd.teachers import Teacher, load_teacher

GREY, COLOUR = (1, 28, 28), (3, 16, 16)
CLASSES = 10


Node: TypeAlias = tuple[str, list[str], list[str], dict[str, Any]]


class Tutorial(nn.Module):
    """PyTorch's own MNIST example, which flattens with ``view`` after a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.drop = nn.Dropout2d()
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = F.relu(self.fc1(x.view(-1, 320)))
        return F.log_softmax(self.fc2(x), dim=1)


class Small(nn.Module):
    """A convolution, BatchNorm and a linear layer over colour images, flattened with ``view``."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.last = nn.Linear(8 * 64, CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        return self.last(x.view(x.size(0), -1))


class After(nn.Module):
    """A small model whose input or output is changed."""

    def __init__(
        self,
        module: nn.Module,
        *,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Any] = lambda x: x,
    ) -> None:
        super().__init__()
        self.module, self.before, self.after = module, before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.module(self.before(x)))


class Output:
    """As Hugging Face's models answer."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def linear(outputs: int = CLASSES, inputs: int = 784) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def whole_numbers(x: Tensor) -> Tensor:
    assert x.dtype == torch.uint8, "expected uint8"
    return x.float() / 127.5 - 1


def one_by_one(x: Tensor) -> Tensor:
    assert len(x) == 1, "only one image at a time"
    return x


def in_place(x: Tensor) -> Tensor:
    return x.sub_(0.5).mul_(2)


def broken() -> nn.Module:
    module = linear()
    nn.init.constant_(module[1].weight, float("nan"))  # type: ignore[index]
    return module


def quantized(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made: nn.Module = torch.ao.quantization.quantize_dynamic(
        linear().eval(), {nn.Linear}, dtype=torch.qint8
    )
    return made


def exported(
    path: Path, module: nn.Module, shape: tuple[int, ...], *, batch: int | None = None
) -> Path:
    images = torch.rand(batch or 4, *shape)
    if whole_numbers in vars(module).values():
        images = (images * 255).to(torch.uint8)
    dynamic = None if batch else ({0: torch.export.Dim("n", min=1)},)
    program = torch.export.export(module, (images,), dynamic_shapes=dynamic, strict=False)
    torch.export.save(program, path / "teacher.pt2")
    return path / "teacher.pt2"


def graph(
    path: Path,
    nodes: list[Node],
    *,
    shape: list[object],
    outputs: dict[str, list[object]],
    weight: int = 784,
    kind: str = "FLOAT",
    **constants: Any,
) -> Path:
    """Write a small ONNX graph, whose weight ``w`` is ``(weight, columns of the last output)``."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    columns = next(iter(outputs.values()))[-1]
    random = torch.Generator().manual_seed(0)
    values = {"w": torch.randn(weight, int(str(columns)), generator=random).numpy(), **constants}
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node(op, ins, outs, **more) for op, ins, outs, more in nodes],
            "teacher",
            [onnx.helper.make_tensor_value_info("images", getattr(onnx.TensorProto, kind), shape)],
            [
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
                for name, sizes in outputs.items()
            ],
            [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(model, path / "teacher.onnx")
    return path / "teacher.onnx"


FLATTEN: Node = ("Flatten", ["images"], ["flat"], {})
MULTIPLY: Node = ("MatMul", ["flat", "w"], ["scores"], {})
TO_SCORES: dict[str, list[object]] = {"scores": ["n", CLASSES]}


def scripted(path: Path, how: str) -> nn.Module:
    module = Tutorial().eval()
    made = (
        torch.jit.script(module)
        if how == "script"
        else torch.jit.trace(module, torch.rand(3, *GREY))
    )
    torch.jit.save(made, str(path / "teacher.pt"))
    loaded: nn.Module = torch.jit.load(str(path / "teacher.pt"))
    return loaded


def saved_script(path: Path) -> Path:
    scripted(path, "script")
    return path / "teacher.pt"


def state_dict(path: Path) -> Path:
    torch.save(Tutorial().state_dict(), path / "weights.pt")
    return path / "weights.pt"


def forest(_: Path) -> Callable[[Tensor], object]:
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(0)
    model = RandomForestClassifier(5, random_state=0)
    model.fit(random.random((200, 784)), np.arange(200) % CLASSES)
    return model.predict_proba  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Animal:
    """A teacher, how it is loaded, and what is expected.

    Args:
        make: builds it in a folder.
        shape: of an image; ``None`` where its file states it.
        refused: what the refusal says; ``None`` if it works.
        mend: the settings with which it works, where a setting mends it.
        noted: what a note says.
        classes: how many.
    """

    make: Callable[[Path], Any]
    shape: tuple[int, int, int] | None = GREY
    refused: str | None = None
    mend: dict[str, Any] = field(default_factory=dict)
    noted: str | None = None
    classes: int = CLASSES


def colour(module: Callable[[], nn.Module], **more: Any) -> Animal:
    return Animal(lambda _: module(), shape=COLOUR, **more)


ZOO = {
    # PyTorch modules.
    "view after a convolution": Animal(lambda _: Tutorial()),
    "view, colour": colour(Small),
    "half": Animal(lambda _: Tutorial().half()),
    "double": colour(lambda: Small().double()),
    "bfloat16": colour(lambda: Small().bfloat16()),
    "softmax in half": colour(
        lambda: After(linear(1000, 768), after=lambda x: x.half().softmax(-1)), classes=1000
    ),
    "one pixel wide": colour(lambda: nn.Conv2d(3, CLASSES, 16), noted="taken as (N, K)"),
    "sigmoid column": Animal(
        lambda _: nn.Sequential(linear(1), nn.Sigmoid()), classes=2, noted="as the probability of"
    ),
    "logit column": Animal(
        lambda _: After(linear(1), after=lambda x: 20 * x + 3), classes=2, noted="as the logit of"
    ),
    "flat inputs": Animal(lambda _: nn.Linear(784, CLASSES), noted="flattened for it"),
    "a sigmoid for each class": Animal(
        lambda _: nn.Sequential(linear(), nn.Sigmoid()), noted="do not sum to one"
    ),
    "an output with logits": Animal(
        lambda _: After(linear(), after=Output), noted="the .logits of the Output"
    ),
    "a wrapped output": Animal(
        lambda _: After(linear(), after=lambda x: (x,)), noted="out of a tuple of one"
    ),
    "changes its input": Animal(lambda _: After(linear(), before=in_place)),
    "looks at the batch": Animal(
        lambda _: After(linear(), before=lambda x: x - x.mean(0, keepdim=True)),
        noted="differently one by one",
    ),
    "quantized": Animal(lambda _: quantized(0)),
    "TorchScript, scripted": Animal(lambda path: scripted(path, "script")),
    "TorchScript, traced": Animal(lambda path: scripted(path, "trace")),
    "channels last": colour(
        lambda: After(Small(), before=lambda x: x.permute(0, 3, 1, 2)),
        refused="say layout nhwc",
        mend={"layout": "nhwc"},
    ),
    "whole numbers": colour(
        lambda: After(Small(), before=whole_numbers),
        refused="say input_scale uint8",
        mend={"input_scale": "uint8"},
    ),
    "a tuple": Animal(
        lambda _: After(linear(), after=lambda x: (x, x[:, :3])),
        refused=r"several outputs \(0 \(5, 10\), 1 \(5, 3\)\): name the scores with output",
        mend={"output": "0"},
    ),
    "a dictionary": Animal(
        lambda _: After(linear(), after=lambda x: {"scores": x, "embedding": x[:, :3]}),
        refused="name the scores with output",
        mend={"output": "scores"},
    ),
    "one number an image": Animal(
        lambda _: After(linear(1), after=lambda x: x.sigmoid().squeeze(1)),
        refused="wrap it in a function: def teacher",
    ),
    "class numbers": Animal(
        lambda _: After(linear(), after=lambda x: x.argmax(1)), refused="leave out argmax"
    ),
    "broken weights": Animal(lambda _: broken(), refused="Check its weights"),
    "another size": Animal(lambda _: linear(CLASSES, 100), refused="docs/teachers.md shows"),
    # Functions.
    "scikit-learn": Animal(forest, noted="flattened for it"),
    "scikit-learn's predict": Animal(
        lambda path: forest(path).__self__.predict,  # type: ignore[attr-defined]
        refused="class numbers.*take predict_proba instead",
    ),
    "scikit-learn's estimator": Animal(
        lambda path: forest(path).__self__,  # type: ignore[attr-defined]
        noted="its predict_proba is asked",
    ),
    "channels last and a dictionary": colour(
        lambda: After(
            After(Small(), before=lambda x: x.permute(0, 3, 1, 2)), after=lambda x: {"scores": x}
        ),
        refused="say layout nhwc",
        mend={"layout": "nhwc", "output": "scores"},
    ),
    "NumPy": Animal(lambda _: lambda x: 9 * x.numpy().reshape(len(x), -1)[:, :CLASSES]),
    # Exported programs.
    "pt2": Animal(lambda path: exported(path, Tutorial().eval(), GREY), shape=None),
    "pt2 in half": Animal(
        lambda path: exported(path, After(linear().half(), before=Tensor.half), GREY), shape=None
    ),
    "pt2 of three": Animal(
        lambda path: exported(path, Tutorial().eval(), GREY, batch=3), shape=None
    ),
    "pt2 in train mode": Animal(
        lambda path: exported(path, Tutorial().train(), GREY), shape=None, noted="module.eval()"
    ),
    "pt2 of whole numbers": Animal(
        lambda path: exported(path, After(linear(), before=whole_numbers), GREY), shape=None
    ),
    "pt2 of two outputs": Animal(
        lambda path: exported(path, After(linear(), after=lambda x: (x[:, :3], x)), GREY),
        shape=None,
        refused=r"by their place \(0 to 1\), with output",
        mend={"output": "1"},
    ),
    # ONNX.
    "onnx": Animal(
        lambda path: graph(
            path, [FLATTEN, MULTIPLY], shape=["n", *GREY], outputs={"scores": ["n", CLASSES]}
        ),
        shape=None,
    ),
    "onnx of four": Animal(
        lambda path: graph(
            path, [FLATTEN, MULTIPLY], shape=[4, *GREY], outputs={"scores": [4, CLASSES]}
        ),
        shape=None,
    ),
    "onnx that says dynamic and is not": Animal(
        lambda path: graph(
            path,
            [("Reshape", ["images", "one"], ["flat"], {}), MULTIPLY],
            shape=["n", *GREY],
            outputs=TO_SCORES,
            one=np.array([1, 784]),
        ),
        shape=None,
    ),
    "onnx, flat": Animal(
        lambda path: graph(
            path,
            [("MatMul", ["images", "w"], ["scores"], {})],
            shape=["n", 784],
            outputs=TO_SCORES,
        ),
        noted="flattened for it",
    ),
    "onnx, flat, of no shape": Animal(
        lambda path: graph(
            path,
            [("MatMul", ["images", "w"], ["scores"], {})],
            shape=["n", 784],
            outputs=TO_SCORES,
        ),
        shape=None,
        refused=r"flat inputs of 784 numbers.*input_shape",
        mend={"input_shape": GREY},
        noted="flattened for it",
    ),
    "onnx of a column": Animal(
        lambda path: graph(
            path,
            [FLATTEN, ("MatMul", ["flat", "w"], ["z"], {}), ("Sigmoid", ["z"], ["scores"], {})],
            shape=["n", *GREY],
            outputs={"scores": ["n", 1]},
        ),
        shape=None,
        classes=2,
        noted="as the probability of",
    ),
    "onnx, channels last": Animal(
        lambda path: graph(path, [FLATTEN, MULTIPLY], shape=["n", 28, 28, 1], outputs=TO_SCORES),
        shape=None,
        refused="seem to be channels last: say layout nhwc",
        mend={"layout": "nhwc"},
    ),
    "onnx of whole numbers": Animal(
        lambda path: graph(
            path,
            [
                ("Cast", ["images"], ["floats"], {"to": 1}),
                ("Flatten", ["floats"], ["flat"], {}),
                MULTIPLY,
            ],
            shape=["n", *GREY],
            outputs=TO_SCORES,
            kind="UINT8",
        ),
        shape=None,
    ),
    "onnx of two outputs": Animal(
        lambda path: graph(
            path,
            [FLATTEN, MULTIPLY, ("Relu", ["scores"], ["rectified"], {})],
            shape=["n", *GREY],
            outputs={**TO_SCORES, "rectified": ["n", CLASSES]},
        ),
        shape=None,
        refused="Name it with output",
        mend={"output": "scores"},
    ),
    # Files of other kinds.
    "TorchScript's file": Animal(saved_script, refused="is a TorchScript program.*factory"),
    "a state dict": Animal(state_dict, refused="weights without the code.*package.module:factory"),
}


def asked(teacher: Teacher, count: int) -> Tensor:
    images = torch.rand(count, *teacher.input_shape, generator=torch.Generator().manual_seed(2))
    images = images.contiguous(memory_format=torch.channels_last)  # as a run's images are
    return open_for_mechanism(teacher.ask(images, query_batch=0))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ZOO)
def test_a_teacher_works_or_is_told_its_mend(name: str, precision: Any, tmp_path: Path) -> None:
    animal = ZOO[name]
    torch.manual_seed(0)
    settings: dict[str, Any] = {"precision": precision}
    if animal.shape is not None:
        settings["input_shape"] = animal.shape
    source = animal.make(tmp_path)
    if animal.refused is not None:
        with pytest.raises(TeacherError, match=animal.refused) as refusal:
            load_teacher(source, **settings)
        assert "\n" not in "".join(refusal.value.parts)
        if not animal.mend:
            return
    teacher = load_teacher(source, **settings | animal.mend)
    assert teacher.num_classes == animal.classes
    # A last batch of another size than the first, as a run has.
    answers = asked(teacher, 131)
    assert answers.shape == (131, animal.classes)
    if animal.noted is None:
        assert teacher.notes == ()
        torch.testing.assert_close(asked(teacher, 2), answers[:2], atol=0.02, rtol=0.1)
    else:
        assert any(animal.noted in note for note in teacher.notes), teacher.notes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantized_weights_tell_a_teacher_from_another() -> None:
    first, again, other = (
        load_teacher(quantized(seed), input_shape=GREY).fingerprint for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_the_zoo_is_large() -> None:
    assert len(ZOO) >= 25

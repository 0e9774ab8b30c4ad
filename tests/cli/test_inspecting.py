"""``dpsd inspect``: what a teacher is, from public noise alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import nn

Invoke = Callable[..., Result]

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 7)
    def forward(self, x):
        return self.last(self.conv(x.permute(0, 3, 1, 2)).view(len(x), -1))

def net():
    torch.manual_seed(0)
    return Net()

def wrong():
    def answer(images):
        raise ValueError("there is no such layer")
    return answer

def paid():
    return lambda images: images.flatten(1)[:, :5] * 9
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "inspected_models.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_module_is_shown_as_it_would_be_called(invoke: Invoke, models: Path) -> None:
    teacher = ("inspected_models:net", "--input-shape", "3,8,8")
    refused = invoke("inspect", *teacher)
    assert refused.exit_code == 4
    assert "It works with other inputs: say --layout nhwc" in refused.stderr
    done = invoke("inspect", *teacher, "--layout", "nhwc")
    assert done.exit_code == 0, done.stderr
    for words in ("(N, 8, 8, 3), float32 in [0, 1]", "logits of 7 classes", "images of noise a"):
        assert words in done.stdout
    assert "at ε = 1 under 'round'" in " ".join(done.stdout.split())
    hint = "dpsd transcribe inspected_models:net --input-shape 3,8,8 --layout nhwc --epsilon 1"
    assert f"{hint} --adjacency round" in done.stderr
    assert {path.suffix for path in models.iterdir() if path.is_file()} == {".py"}


def test_facts_as_json(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "train.pt2"
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(), nn.Linear(16, 3)).train()
    batch = ({0: torch.export.Dim("n", min=1)},)
    images = (torch.rand(4, 1, 8, 8),)
    torch.export.save(torch.export.export(module, images, dynamic_shapes=batch), path)
    done = invoke("inspect", path, "--json", "--class-names", "cat,dog,owl")
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["input_shape"] == [1, 8, 8]
    assert (facts["num_classes"], facts["class_names"]) == (3, ["cat", "dog", "owl"])
    assert facts["images_per_second"] > 0
    assert facts["queries"] > 0
    assert "module.eval()" in facts["notes"][0]
    assert [file.name for file in tmp_path.iterdir()] == ["train.pt2"]


@pytest.mark.usefixtures("models")
def test_an_error_of_the_users_code_has_its_words_and_its_place(invoke: Invoke) -> None:
    refused = invoke("inspect", "inspected_models:wrong", "--input-shape", "1,8,8")
    assert refused.exit_code == 4
    words = " ".join(refused.stderr.split())
    assert "raised ValueError: there is no such layer (at inspected_models.py:" in words


@pytest.mark.usefixtures("models")
def test_a_function_is_not_timed_as_it_may_cost_money(invoke: Invoke) -> None:
    done = invoke("inspect", "inspected_models:paid", "--input-shape", "1,8,8")
    assert done.exit_code == 0, done.stderr
    assert "images of noise a second" not in done.stdout

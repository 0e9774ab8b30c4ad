"""Record-level baselines on the same data: DP-SGD on the original images, and PATE on public ones.

    python benchmarks/baselines.py dp-sgd --data mnist --epsilon 1
    python benchmarks/baselines.py pate --data mnist --epsilon 1 --shards 250

Both have what a transcription does not: DP-SGD has the private data themselves; PATE (Papernot et
al., 2018: GNMax, which releases the winning class alone) has real, public images of the same
distribution to ask about, here 9,000 of the test split, and is measured on the other 1,000. ε is
under replace-one for PATE, as for dpsd, and under add-or-remove for DP-SGD, as Opacus accounts it:
to half of dpsd's change, roughly, so DP-SGD's rows are flattered by it.

DP-SGD (Opacus, PRV accountant): the small CNN of Papernot et al., AAAI 2021, with tempered sigmoids
(tanh), and large batches.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from datetime import date
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dpsd
from dpsd.datasets import LabelledImages, load_dataset
from dpsd.execution import Execution
from dpsd.privacy.accounting import Exposure, calibrate
from dpsd.privacy.mechanisms import NoisyVotes
from dpsd.teachers.training import train_teacher
from transcriptions import trained_teacher

DELTA = 1e-5


def main() -> None:
    """Run one baseline and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["dp-sgd", "pate"])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epsilon", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=15, help="of DP-SGD")
    parser.add_argument("--batch", type=int, default=1024, help="of DP-SGD, expected")
    parser.add_argument("--learning-rate", type=float, default=2.0, help="of DP-SGD")
    parser.add_argument("--shards", type=int, default=250, help="of PATE")
    parser.add_argument("--queries", type=int, default=1000, help="of PATE")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    start = time.perf_counter()
    accuracy = (dp_sgd if arguments.name == "dp-sgd" else pate)(arguments)
    row: dict[str, Any] = {
        **vars(arguments),
        "accuracy": accuracy,
        "seconds": round(time.perf_counter() - start, 1),
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
    }
    print(json.dumps(row))


def dp_sgd(arguments: argparse.Namespace) -> float:
    """Test accuracy of DP-SGD on the original training images."""
    from opacus import PrivacyEngine

    train, test = load_dataset(arguments.data, "train"), load_dataset(arguments.data, "test")
    model = nn.Sequential(
        nn.Conv2d(train.input_shape[0], 16, 8, 2, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.LazyLinear(32),
        nn.Tanh(),
        nn.Linear(32, train.num_classes),
    )
    images = train.images.float() / 255 - 0.5
    model(images[:2])
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, train.labels), batch_size=arguments.batch
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.learning_rate, momentum=0.5)
    warnings.simplefilter("ignore")
    private, optimizer, loader = PrivacyEngine(accountant="prv").make_private_with_epsilon(
        module=model,
        optimizer=optimizer,
        data_loader=loader,
        target_epsilon=arguments.epsilon,
        target_delta=DELTA,
        epochs=arguments.epochs,
        max_grad_norm=0.1,
    )
    # The rate is for a mean of clipped gradients; small bounds want larger ones.
    for _ in range(arguments.epochs):
        for batch, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(private(batch), labels).backward()
            optimizer.step()
    with torch.inference_mode():
        found = model.eval()(test.images.float() / 255 - 0.5).argmax(-1)
    return float((found == test.labels).double().mean())


def pate(arguments: argparse.Namespace) -> float:
    """Test accuracy of a student of GNMax labels of real, public images."""
    test = load_dataset(arguments.data, "test")
    teacher = dpsd.load_teacher(trained_teacher(arguments.data, arguments.shards))
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(arguments.seed))
    public, held_out = order[:9000], order[9000:]
    asked = public[: arguments.queries]
    votes = calibrate(
        NoisyVotes(teachers=teacher.members),
        dpsd.Budget(epsilon=arguments.epsilon, delta=DELTA, adjacency="teacher"),
        Exposure.of_rounds([len(asked)]),
    )
    images = test.images[asked].float() / 255
    flat = torch.full((len(asked), test.num_classes), 1 / test.num_classes)
    size = teacher.query_batch
    labels = torch.cat(
        [
            votes.privatize(teacher.ask(part, query_batch=i), flat[: len(part)]).argmax(-1)
            for i, part in enumerate(torch.split(images, size))
        ]
    )
    labelled = LabelledImages(
        images=test.images[asked],
        labels=labels,
        class_names=test.class_names,
        name=arguments.data,
        split="public",
    )
    student = train_teacher(labelled, model="cnn", seed=arguments.seed)
    return _accuracy(student, test.images[held_out], test.labels[held_out])


def _accuracy(student: nn.Module, images: Tensor, labels: Tensor) -> float:
    found = Execution.of(precision="float32").predict(student, images).argmax(-1).cpu()
    return float((found == labels).double().mean())


if __name__ == "__main__":
    main()

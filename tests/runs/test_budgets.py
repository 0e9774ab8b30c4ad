"""Runs write down what they ask of a teacher, where its next run will find it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dpsd
from dpsd import Budget, BudgetError, ConfigError, RandomizedResponse, Recipe, Run, RunError
from dpsd.models import build_classifier
from dpsd.privacy.mechanisms import NoisyVotes
from dpsd.privacy.records.accounts import Accounts
from dpsd.privacy.records.ledger import reservation
from dpsd.privacy.records.teacher_budget import RunSpending, TeacherBudget
from dpsd.runs.budgets import budget_of, set_cap
from dpsd.storage.locks import exclusively
from dpsd.teachers import Teacher
from dpsd.teachers.directory import TeacherRecord, save_teacher
from dpsd.transcription.learning import Learning

SHAPE = (1, 8, 8)
RECIPE = Recipe(
    rounds=2, queries=64, student_steps=3, batch_size=32, generator_steps=1,
    generator_batch_size=16,
    device="cpu", precision="float32",
)  # fmt: skip


class Thirds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.gain * images[:, 0, :6].reshape(len(images), 3, 16).mean(-1)


@pytest.fixture
def teacher() -> Teacher:
    return dpsd.load_teacher(Thirds(), input_shape=SHAPE)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def run(teacher: Teacher, out: Path, **more: Any) -> Run:
    return dpsd.transcribe(
        teacher,
        mechanism=RandomizedResponse(),
        budget=Budget(epsilon=2.0, delta=0, adjacency="round"),
        student="lenet5",
        out=out,
        recipe=RECIPE,
        **more,
    )


def runs(teacher: Teacher, *paths: Path) -> list[RunSpending]:
    found = budget_of(teacher, *paths)
    assert found is not None
    return found.most_spent(delta=1e-5).runs()


def stored_teacher(path: Path, *, seed: int = 0) -> Teacher:
    module = build_classifier("lenet5", input_shape=SHAPE, num_classes=3, seed=seed)
    record = TeacherRecord(model="lenet5", input_shape=SHAPE, num_classes=3)
    return dpsd.load_teacher(save_teacher(path, module, record))


def test_a_name_is_no_hash_whatever_it_looks_like() -> None:
    """Else a name could lead the budget of a teacher without content to any place."""
    for name in ("sha256:00", "hmac-sha256:../../elsewhere"):
        named = dpsd.load_teacher(Thirds().forward, input_shape=SHAPE, name=name)
        assert budget_of(named) is None


def test_a_budget_is_beside_the_teacher(tmp_path: Path) -> None:
    teacher = stored_teacher(tmp_path / "teacher")
    found = budget_of(teacher)
    assert found is not None
    assert found.path == tmp_path / "teacher" / "budget.jsonl"
    run(teacher, tmp_path / "run")
    assert [one.directory for one in runs(teacher)] == [str(tmp_path / "run")]


def test_a_teacher_without_a_place_is_known_by_its_content(
    teacher: Teacher, own_data_directory: Path
) -> None:
    found, again = budget_of(teacher), budget_of(dpsd.load_teacher(Thirds(), input_shape=SHAPE))
    assert found is not None
    assert again is not None
    assert found.path == again.path
    assert own_data_directory in found.path.parents


def test_a_place_that_cannot_be_written_is_left_alone(
    tmp_path: Path, own_data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = stored_teacher(tmp_path / "teacher")
    monkeypatch.setattr("dpsd.runs.budgets.os.access", lambda path, mode: False)
    found = budget_of(teacher)
    assert found is not None
    assert own_data_directory in found.path.parents


def test_a_budget_is_gone_on_with_wherever_it_is(
    tmp_path: Path, own_data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = stored_teacher(tmp_path / "teacher")
    with monkeypatch.context() as patched:
        patched.setattr("dpsd.runs.budgets.os.access", lambda path, mode: False)
        run(teacher, tmp_path / "run")
    found = budget_of(teacher)
    assert found is not None
    assert own_data_directory in found.path.parents
    beside = TeacherBudget(tmp_path / "teacher" / "budget.jsonl", teacher=teacher.fingerprint)
    beside.set_cap(Budget(epsilon=3.0, delta=0, adjacency="round"))
    # With one beside the teacher as well, both count, and both are gone on with.
    with pytest.raises(BudgetError, match="the cap is 3, and ε = 2 is spent"):
        run(teacher, tmp_path / "other")
    beside.set_cap(None)
    run(teacher, tmp_path / "other")
    assert len(beside.runs()) == 1
    assert len(runs(teacher)) == 2


def test_a_callable_has_a_budget_where_one_says_so(tmp_path: Path) -> None:
    teacher = dpsd.load_teacher(Thirds().forward, input_shape=SHAPE, scores="logits", name="thirds")
    assert budget_of(teacher) is None
    file = tmp_path / "budget.jsonl"
    run(teacher, tmp_path / "run", budget_file=file)
    assert file.exists()
    with pytest.raises(ConfigError, match="budget_file"):
        run(teacher, tmp_path / "other", cap=Budget(epsilon=9.0))


def test_a_cap_refuses_the_second_run_before_the_first_answer(
    teacher: Teacher, tmp_path: Path
) -> None:
    cap = Budget(epsilon=3.0, delta=0, adjacency="round")
    run(teacher, tmp_path / "one", cap=cap)
    with pytest.raises(BudgetError, match="spent ε = 4 under 'round'"):
        run(teacher, tmp_path / "other", cap=cap)
    assert len(runs(teacher)) == 1
    assert not (tmp_path / "other").exists()


def test_a_certificate_tells_of_earlier_runs(teacher: Teacher, tmp_path: Path) -> None:
    first = run(teacher, tmp_path / "one").certificate
    second = run(teacher, tmp_path / "other").certificate
    nothing = {"runs": 0, "response": 0, "round": 0, "teacher": 0}
    assert first.earlier is not None
    assert first.earlier.items() >= nothing.items()
    assert first.earlier["file"].endswith("budget.jsonl")
    assert second.earlier is not None
    assert second.earlier["runs"] == 1
    assert second.earlier["round"] == pytest.approx(2.0)
    assert "2 under `round`" in second.history
    assert second == dpsd.RunDirectory.open(tmp_path / "other").certify()


def test_one_run_at_a_time_on_a_budget(teacher: Teacher, tmp_path: Path) -> None:
    file = tmp_path / "budget.jsonl"
    with exclusively(file), pytest.raises(RunError, match="is in use by process"):
        run(teacher, tmp_path / "run", budget_file=file)
    found = budget_of(teacher)
    assert found is not None
    with exclusively(found.path), pytest.raises(RunError, match="is in use by process"):
        run(teacher, tmp_path / "run", budget_file=file)


def test_a_budget_that_is_replaced_in_a_run_stops_it(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, asked = tmp_path / "budget.jsonl", teacher.ask

    def replaced(*arguments: Any, **options: Any) -> Any:
        copy = tmp_path / "copy"
        copy.write_bytes(file.read_bytes())
        copy.replace(file)
        return asked(*arguments, **options)

    monkeypatch.setattr(teacher, "ask", replaced)
    with pytest.raises(RunError, match=r"budget\.jsonl was removed or replaced"):
        run(teacher, tmp_path / "run", budget_file=file)


def test_a_named_file_does_not_get_around_the_cap_in_the_usual_place(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = budget_of(teacher)
    assert usual is not None
    set_cap(usual, Budget(epsilon=3.0, delta=0, adjacency="round"))
    run(teacher, tmp_path / "one", budget_file=tmp_path / "budget.jsonl")
    # What was recorded in the named file is on record in the usual place too.
    assert len(runs(teacher)) == 1
    for file in (tmp_path / "budget.jsonl", tmp_path / "new.jsonl", None):
        with pytest.raises(BudgetError, match="the cap is 3, and ε = 2 is spent"):
            run(teacher, tmp_path / "other", budget_file=file)
    assert not (tmp_path / "other").exists()


def test_resuming_with_a_named_file_does_not_get_around_a_cap_either(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = tmp_path / "begun.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(Learning, "teach_student", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(teacher, tmp_path / "run", budget_file=begun)
    cap = Budget(epsilon=1.5, delta=0, adjacency="round")
    for where in (None, begun):
        found = budget_of(teacher, where)
        assert found is not None
        set_cap(found, cap, path=where)
        with pytest.raises(BudgetError, match=r"the cap is 1\.5, and ε = 1 is spent"):
            dpsd.resume(tmp_path / "run", teacher, budget_file=tmp_path / "new.jsonl")
        set_cap(found, None, path=where)
    # Another file is told all that the run asked before.
    dpsd.resume(tmp_path / "run", teacher, budget_file=tmp_path / "new.jsonl")
    for file in ("begun.jsonl", "new.jsonl"):
        recorded = TeacherBudget(tmp_path / file, teacher=teacher.fingerprint).reservations()
        assert [entry["round"] for entry in recorded] == [1, 2]


def test_what_a_crash_wasted_stops_a_run_at_its_cap(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap = Budget(epsilon=2.0, delta=0, adjacency="round")
    asked: Callable[..., Any] = teacher.ask
    monkeypatch.setattr(teacher, "ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(teacher, tmp_path / "run", cap=cap)
    monkeypatch.setattr(teacher, "ask", asked)
    with pytest.raises(BudgetError, match=r"ε = 3 .*above its target 2\. To allow"):
        dpsd.resume(tmp_path / "run", teacher)
    resumed = dpsd.resume(tmp_path / "run", teacher, cap=Budget(epsilon=3.0, delta=0))
    assert resumed.certificate.spent.round == pytest.approx(3.0)


def reserve(
    budget: TeacherBudget | Accounts, name: str, *rounds: int, mechanism: Any = None
) -> None:
    for index in rounds:
        entry = reservation(
            round_index=index,
            answers=64,
            mechanism=mechanism or RandomizedResponse(epsilon=1.0),
            teacher="sha256:ab",
        )
        budget.reserve(entry, run=name, directory=name)


VOTES = NoisyVotes(noise_multiplier=4.0, teachers=3)
#: What two rounds of it cost is above, and what one costs is below.
CAP = Budget(epsilon=14.0, delta=1e-5, adjacency="teacher")


def admit(teacher: Teacher, *, rounds: int = 1) -> None:
    found = budget_of(teacher)
    assert found is not None
    planned = [(index, 64) for index in range(1, rounds + 1)]
    mechanism = VOTES if teacher.members > 1 else RandomizedResponse(epsilon=1.0)
    found.admit(run="new", mechanism=mechanism, planned=planned, delta=1e-5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        stored_teacher(tmp_path / "all" / name, seed=seed)
    return tmp_path / "all"


def test_a_member_that_joins_takes_no_cap_and_no_spending_away(folder: Path) -> None:
    three = budget_of(dpsd.load_teacher(folder))
    assert three is not None
    set_cap(three, CAP)
    reserve(three, "one", 1, mechanism=VOTES)
    assert (folder / "a" / "budget.jsonl").exists()
    stored_teacher(folder / "d", seed=9)
    four = dpsd.load_teacher(folder)
    with pytest.raises(BudgetError, match=r"with this run teacher .*/all/a would have spent"):
        admit(four)
    found = budget_of(four)
    assert found is not None
    assert [len(account.runs()) for account in found.accounts] == [1, 1, 1, 0]
    assert len(found.most_spent(delta=1e-5).runs()) == 1
    # Nor does one that leaves, or a folder that moves.
    (folder / "d").rename(folder.parent / "d")
    moved = folder.rename(folder.parent / "moved")
    with pytest.raises(BudgetError, match="would have spent"):
        admit(dpsd.load_teacher(moved))


def test_a_member_that_is_asked_alone_is_counted_with_its_committee(
    folder: Path, tmp_path: Path
) -> None:
    alone = dpsd.load_teacher(folder / "b")
    run(alone, tmp_path / "alone")
    together = dpsd.load_teacher(folder)
    certificate = dpsd.transcribe(
        together,
        mechanism=NoisyVotes(),
        budget=CAP,
        student="lenet5",
        out=tmp_path / "together",
        recipe=RECIPE,
    ).certificate
    assert certificate.earlier is not None
    assert (certificate.earlier["runs"], certificate.earlier["accounts"]) == (1, 3)
    assert "the one of its 3 teachers that had spent most" in certificate.history
    assert [one.run for one in runs(alone)] == [one.run for one in runs(together)]
    assert len(runs(alone)) == 2
    assert len(runs(dpsd.load_teacher(folder / "c"))) == 1
    # No hash of a member's weights is published with the run.
    secrets = [one.fingerprint.partition(":")[2] for one in together.charged]
    for path in (tmp_path / "together").rglob("*"):
        assert path.is_dir() or not any(one.encode() in path.read_bytes() for one in secrets)


def test_modules_have_accounts_in_a_committee(own_data_directory: Path) -> None:
    modules = [
        build_classifier("lenet5", input_shape=SHAPE, num_classes=3, seed=seed) for seed in (0, 1)
    ]
    members = [dpsd.load_teacher(module, input_shape=SHAPE) for module in modules]
    found = budget_of(dpsd.load_teacher(members))
    assert found is not None
    assert all(own_data_directory in path.parents for path in found.paths)
    found.path.parent.mkdir(parents=True)  # as who holds a budget does
    reserve(found, "one", 1, mechanism=VOTES)
    assert len(runs(members[1])) == 1


def test_a_cap_is_refused_where_a_member_has_no_content(tmp_path: Path) -> None:
    def thirds(images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = Thirds()(images)
        return scores

    named = [
        dpsd.load_teacher(thirds, input_shape=SHAPE, scores="logits", name="thirds"),
        dpsd.load_teacher(Thirds(), input_shape=SHAPE),
    ]
    committee = dpsd.load_teacher(named)
    found = budget_of(committee)
    assert found is not None
    assert found.unknown
    more: dict[str, Any] = {"mechanism": NoisyVotes(), "budget": CAP, "recipe": RECIPE}
    with pytest.raises(ConfigError, match="budget_file"):
        dpsd.transcribe(committee, out=tmp_path / "run", cap=CAP, **more)
    in_file = budget_of(committee, tmp_path / "budget.jsonl")
    assert in_file is not None
    assert not in_file.unknown


def test_what_an_earlier_dpsd_recorded_of_a_committee_counts_for_its_members(folder: Path) -> None:
    three = dpsd.load_teacher(folder)
    old = TeacherBudget(folder / "budget.jsonl", teacher=three.fingerprint)
    reserve(old, "old", 1, mechanism=VOTES)
    assert [one.run for one in runs(dpsd.load_teacher(folder / "a"))] == ["old"]
    old.set_cap(CAP)
    stored_teacher(folder / "d", seed=9)
    four = dpsd.load_teacher(folder)
    assert four.fingerprint != three.fingerprint
    with pytest.raises(BudgetError, match=r"all/budget\.jsonl"):
        admit(four)
    found = budget_of(four)
    assert found is not None
    set_cap(found, None)
    admit(four)
    reserve(TeacherBudget(folder / "budget.jsonl", teacher="sha256:of-one"), "of one", 1)
    assert [one.run for one in runs(four)] == ["old"]


def test_a_cap_of_a_committee_that_was_never_asked_holds_when_a_member_joins(folder: Path) -> None:
    old = TeacherBudget(folder / "budget.jsonl", teacher=dpsd.load_teacher(folder).fingerprint)
    old.set_cap(Budget(epsilon=0.1))
    stored_teacher(folder / "d", seed=9)
    with pytest.raises(BudgetError, match=r"the cap is 0\.1"):
        admit(dpsd.load_teacher(folder))


def test_a_teacher_that_changed_in_place_is_told_of_and_counted_for_good(tmp_path: Path) -> None:
    place = tmp_path / "teacher"
    reserve_all = budget_of(stored_teacher(place))
    assert reserve_all is not None
    reserve(reserve_all, "before", 1)
    changed = stored_teacher(place, seed=1)
    assert runs(changed) == []
    words = r"teacher/budget\.jsonl records 1 run against .*\(ε = 1 under 'round'.*--count-earlier"
    with pytest.warns(UserWarning, match=words):
        run(changed, tmp_path / "ignored")
    assert len(runs(changed)) == 1
    run(changed, tmp_path / "counted", count_earlier=True)
    assert len(runs(changed)) == 3
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        run(changed, tmp_path / "again", budget_file=tmp_path / "all.jsonl")
        # One file for several teachers is what somebody chose.
        run(
            stored_teacher(tmp_path / "third", seed=3),
            tmp_path / "third run",
            budget_file=tmp_path / "all.jsonl",
        )
    assert not [one for one in shown if "--count-earlier" in str(one.message)]
    assert len(runs(changed)) == 4


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
        ],
        "teacher",
        [helper.make_tensor_value_info("images", kind, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("scores", kind, ["batch", 3])],
        [onnx.numpy_helper.from_array(weight.numpy(), "weight")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


def spend(teacher: Teacher, name: str) -> None:
    found = budget_of(teacher)
    assert found is not None
    reserve(found, name, 1)


@pytest.mark.parametrize("how", ["renamed", "hard link", "copied"])
def test_a_file_by_another_name_finds_its_budget(onnx_file: Path, how: str) -> None:
    spend(dpsd.load_teacher(onnx_file), "before")
    assert (onnx_file.parent / "a.onnx.budget.jsonl").exists()
    other = onnx_file.with_name("b.onnx")
    if how == "renamed":
        onnx_file.rename(other)
    elif how == "hard link":
        other.hardlink_to(onnx_file)
    else:
        other.write_bytes(onnx_file.read_bytes())
    spend(dpsd.load_teacher(other), "after")
    for path in {other, onnx_file} if onnx_file.exists() else {other}:
        assert [one.run for one in runs(dpsd.load_teacher(path))] == ["before", "after"]


def test_an_onnx_file_whose_comment_changed_is_told_of(onnx_file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    spend(dpsd.load_teacher(onnx_file), "before")
    model = onnx.load(onnx_file)
    model.doc_string = "the same, with a comment"
    onnx.save(model, onnx_file)
    found = budget_of(dpsd.load_teacher(onnx_file))
    assert found is not None
    ((_, other),) = found.uncounted()
    assert other.is_all
    assert other.path == onnx_file.parent / "a.onnx.budget.jsonl"

"""Several processes on one run, each with a device of its own.

Process 0 leads: it alone synthesises, writes, and owns the ledger. The others answer their part of
every batch of queries, and take their rows of every training batch. What travels between them is
public: queries, priors, releases, gradients, weights. A raw answer never leaves the process that
asked for it.

One process is the rule, and :data:`ALONE` is that: it has nobody to talk to, so each of its methods
gives back what it was given.

>>> ALONE.leads, ALONE.share(256)
(True, Share(rows=slice(0, 256, None), weight=1.0))
>>> ALONE.gather(torch.tensor([1, 2])).tolist()
[1, 2]
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dpsd.errors import (
    AnswerError,
    BudgetError,
    ConfigError,
    DataError,
    DpsdError,
    RunError,
    Setting,
    TeacherError,
    WriteError,
)

#: How long processes wait for each other outside training: a round may take process 0 that long.
_PATIENCE = timedelta(days=7)

#: How long they wait as they join, and for each other's gradients.
_MEETING = timedelta(minutes=5)

#: Where the process that failed first says why.
_FAILURE = "failure"

#: Seconds for which a process that others started stays silent, so that process 0 speaks first.
_GRACE = 3.0

#: Errors that keep their kind, and so their exit code, on the way to process 0.
_KINDS: dict[str, type[DpsdError]] = {
    kind.__name__: kind
    for kind in (
        AnswerError,
        TeacherError,
        DataError,
        BudgetError,
        ConfigError,
        WriteError,
        RunError,
        DpsdError,
    )
}


class StoppedError(RunError):
    """Another process ended the run; that one, or process 0, says why."""


@dataclass(frozen=True)
class Share:
    """A process's part of a training batch.

    Args:
        rows: which of the batch.
        weight: their part of the batch; of all processes together 1.
    """

    rows: slice
    weight: float


class Processes:
    """One process, and what several would have to agree on."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is process 0, which owns the run."""
        return self.rank == 0

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def deal(self, *columns: Tensor) -> tuple[Tensor, ...]:
        """Of process 0: give every process its rows of a batch of queries, each to exactly one.

        Args:
            columns: on the CPU, all of the same length, at least 1.

        Returns:
            This process's rows of each.
        """
        return columns

    def dealt(self) -> Iterator[tuple[Tensor, ...] | None]:
        """Of the others: their rows of batch after batch, ``None`` where a batch has too few."""
        return iter(())

    def end_deal(self) -> None:
        """Of process 0: there is no more to deal."""

    def gather(self, rows: Tensor | None) -> Tensor:
        """All processes' rows, in the order in which they were dealt; of use to process 0 alone.

        Args:
            rows: this process's, on the CPU, ``(n, …)``; ``None`` if it was dealt none.
        """
        assert rows is not None
        return rows

    def share(self, total: int) -> Share:
        """The part of a training batch of so many rows that is this process's."""
        return Share(slice(0, total), 1.0)

    def combine_gradients(self, module: nn.Module, share: Share) -> None:
        """Make each process's gradients those of the mean over the whole batch."""

    def combine(self, value: Tensor) -> Tensor:
        """The sum of every process's value."""
        return value

    def settle(self, module: nn.Module) -> None:
        """After training: the same weights and buffers in every process."""

    def copy(self, module: nn.Module) -> None:
        """Make a module in every process what it is in process 0."""

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def agree(self, name: str, value: str) -> None:
        """Refuse to go on where a process has another value than process 0.

        Raises:
            ConfigError: this one has.
        """


#: What joins processes that a scheduler started, from one run to the next: they meet only once.
_LASTING: list[Any] = []


def _part() -> None:
    """Leave the processes' group: the others learn of it at once."""
    _LASTING.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


#: The one process of an ordinary run.
ALONE = Processes()


@dataclass(frozen=True)
class Placement:
    """Which process this is.

    Args:
        rank: among all, from 0.
        local_rank: among those of this machine.
        count: of all processes.
        local_count: of those on this machine.
        address: host and port where process 0 is found; ``None`` where the scheduler says.
    """

    rank: int
    local_rank: int
    count: int
    local_count: int
    address: tuple[str, int] | None = None


class Followers(Protocol):
    """Processes that process 0 starts itself; see :mod:`dpsd.transcription.launching`."""

    def start(self) -> tuple[str, int]:
        """Start them, and wait until they are ready; returns where process 0 will be found."""

    def stop(self) -> None:
        """End them, whatever they are doing."""


class Group(Processes):
    """Several processes, joined by Lightning Fabric while the context is open.

    Args:
        placement: which of them this is.
        device: of this process.
        followers: the others, if this process starts them.
    """

    def __init__(
        self, placement: Placement, device: torch.device, followers: Followers | None = None
    ) -> None:
        self.rank, self.count = placement.rank, placement.count
        self._placement, self._device, self._followers = placement, device, followers
        self._talk: Any = None
        self._notes: Any = None
        self._end = ExitStack()

    def __enter__(self) -> Group:
        with ExitStack() as stack, ExitStack() as failed:
            if self._followers is not None:
                stack.callback(self._followers.stop)
                self._placement = replace(self._placement, address=self._followers.start())
            stack.enter_context(_connected(self._placement, self._device))
            failed.callback(_part)
            if not _LASTING:
                # Beside Fabric's group, which averages gradients: over TCP, where the end of one
                # process is seen by the others at once, and with patience for long rounds.
                talk = dist.new_group(backend="gloo", timeout=_PATIENCE)
                _LASTING.extend([talk, self._opened_notes()])
            self._talk, self._notes = _LASTING
            failed.pop_all()
            self._end = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and not self.leads and not isinstance(error, StoppedError):
            with suppress(RuntimeError):  # process 0 may be gone already
                note = json.dumps(described(error, rank=self.rank))
                self._notes.compare_set(_FAILURE, "", note)
        self._talk = self._notes = None
        with self._end:
            if self._followers is not None:
                self._followers.stop()  # first: the group would wait for what they are to send
            if error is not None or self._placement.address is not None:
                _part()
        if error is not None and not self.leads:
            time.sleep(_GRACE)

    def deal(self, *columns: Tensor) -> tuple[Tensor, ...]:
        self._spread(columns)
        own = self._dealt(columns)
        assert own is not None  # process 0 has the first rows of every batch
        return own

    def dealt(self) -> Iterator[tuple[Tensor, ...] | None]:
        while (columns := self._spread(None)) is not None:
            yield self._dealt(columns)

    def end_deal(self) -> None:
        self._spread(None)

    def _dealt(self, columns: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
        own = tuple(column.tensor_split(self.count)[self.rank] for column in columns)
        return own if len(own[0]) else None

    def gather(self, rows: Tensor | None) -> Tensor:
        packed = _packed(() if rows is None else (rows,))
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        own_size = torch.tensor([len(packed)])
        self._wait(lambda: dist.all_gather(sizes, own_size, group=self._talk, async_op=True))
        most = int(torch.cat(sizes).max())
        padded = torch.cat([packed, packed.new_zeros(most - len(packed))])
        found = [torch.empty_like(padded) for _ in range(self.count)]
        self._wait(lambda: dist.all_gather(found, padded, group=self._talk, async_op=True))
        parts = [_unpacked(part[: int(size)]) for part, size in zip(found, sizes, strict=True)]
        return torch.cat([tensor for tensors in parts for tensor in tensors])

    def share(self, total: int) -> Share:
        # BatchNorm needs two rows; a process for which there are none computes on some for nothing.
        sharing = max(1, min(self.count, total // 2))
        if self.rank >= sharing:
            return Share(slice(0, min(2, total)), 0.0)
        start, stop = (total * part // sharing for part in (self.rank, self.rank + 1))
        return Share(slice(start, stop), (stop - start) / total)

    def combine_gradients(self, module: nn.Module, share: Share) -> None:
        learning = [weight for weight in module.parameters() if weight.requires_grad]
        for weight in learning:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in learning if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients]).mul_(share.weight)
        self._wait(lambda: dist.all_reduce(flat, async_op=True), pause=0)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def combine(self, value: Tensor) -> Tensor:
        total = value.detach().cpu().clone()
        self._wait(lambda: dist.all_reduce(total, group=self._talk, async_op=True))
        return total

    def settle(self, module: nn.Module) -> None:
        """The mean of BatchNorm's running statistics, and process 0's of everything else.

        Each process normalises by its own rows, as is usual where they are many. The running
        statistics are linear in those of the batches, so their mean over the processes is what
        one process would have gathered from all of these rows.
        """
        running = [
            buffer
            for name, buffer in module.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ]
        if running:
            flat = self.combine(torch.cat([buffer.flatten() for buffer in running])) / self.count
            sizes = [buffer.numel() for buffer in running]
            for buffer, mean in zip(running, torch.split(flat, sizes), strict=True):
                buffer.copy_(mean.view_as(buffer))
        self.copy(module)

    def copy(self, module: nn.Module) -> None:
        kept = [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
        received = self._spread([tensor.cpu() for tensor in kept] if self.leads else None)
        assert received is not None
        if not self.leads:
            for tensor, value in zip(kept, received, strict=True):
                tensor.copy_(value)

    def barrier(self) -> None:
        self.combine(torch.zeros(1))

    def agree(self, name: str, value: str) -> None:
        own = torch.tensor(list(value.encode()), dtype=torch.uint8)
        received = self._spread([own] if self.leads else None)
        assert received is not None
        if not own.equal(received[0]):
            raise ConfigError(f"{name} is another than process 0's: start all processes alike")

    def _spread(self, tensors: Sequence[Tensor] | None) -> Sequence[Tensor] | None:
        """Process 0's tensors, in every process; ``None`` from it says that there are none."""
        packed = torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([-1])
        if self.leads and tensors is not None:
            packed = _packed(tensors)
            size = torch.tensor([len(packed)])
        self._wait(lambda: dist.broadcast(size, 0, group=self._talk, async_op=True))
        if size < 0:
            return None
        if not self.leads:
            packed = torch.empty(int(size), dtype=torch.uint8)
        self._wait(lambda: dist.broadcast(packed, 0, group=self._talk, async_op=True))
        return tensors if self.leads else _unpacked(packed)

    def _wait(self, begin: Callable[[], Any], *, pause: float = 0.05) -> None:
        """Until all processes have done their part, or one has failed."""
        try:
            work = begin()
            # In slices, as nothing interrupts a process that waits in the library.
            waited = 1e-4
            while pause and not work.is_completed():
                time.sleep(waited)
                waited = min(pause, 1.5 * waited)
            work.wait()
        except RuntimeError:
            failure = self._failure()
        else:
            return
        raise failure  # outside the handler: the transport's own words help nobody

    def _failure(self) -> Exception:
        """Why another process is gone."""
        if not self.leads:
            return StoppedError(f"process {self.rank} of {self.count}: process 0 ended the run")
        if self._notes.check([_FAILURE]):
            return recalled(json.loads(self._notes.get(_FAILURE)))
        return RunError(
            f"one of the {self.count} processes ended without a word: it was killed, perhaps "
            "because memory ran out"
        )

    def _opened_notes(self) -> Any:
        """A place for the last words of a process whose connections are about to close."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined, unused-ignore]

        host = os.environ["MASTER_ADDR"]  # Fabric has put it there, whoever started the processes
        port = torch.zeros(1, dtype=torch.int64, device=self._device)
        store = None
        if self.leads:
            store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
            port += store.port
        dist.broadcast(port, 0)
        return store or TCPStore(host, int(port), is_master=False, wait_for_workers=False)


def described(error: BaseException, *, rank: int) -> dict[str, str]:
    """An error, for process 0: messages of ours quote no answer, and of others none is quoted.

    >>> described(ValueError(0.731), rank=1)["message"]
    'process 1 stopped with ValueError (its message is withheld: it may quote answers)'
    """
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS), None)
    if kind is not None:
        return {"kind": kind, "message": f"{error} (in process {rank})"}
    if isinstance(error, MemoryError):
        return {"kind": "MemoryError", "message": ""}
    name = type(error).__name__
    return {
        "kind": "RunError",
        "message": f"process {rank} stopped with {name} (its message is withheld: it may quote "
        "answers)",
    }


def recalled(note: Mapping[str, str]) -> Exception:
    """The error that :func:`described` described.

    >>> recalled(described(TeacherError("it is deaf"), rank=1))
    TeacherError('it is deaf (in process 1)')
    """
    if note["kind"] == "MemoryError":
        return MemoryError(note["message"])
    return _KINDS.get(note["kind"], RunError)(note["message"])


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as bytes; safetensors, so that reading them runs nothing."""
    if not tensors:
        return torch.empty(0, dtype=torch.uint8)
    # Clones, as the format does not allow two views of the same memory.
    named = {str(number): tensor.clone().contiguous() for number, tensor in enumerate(tensors)}
    return torch.frombuffer(bytearray(safetensors.torch.save(named)), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> list[Tensor]:
    if not len(packed):
        return []
    named = safetensors.torch.load(packed.numpy().tobytes())
    return [named[str(number)] for number in range(len(named))]


#: What is said to Fabric, or by it, about one group.
_VARIABLES = (
    *("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"),
    *("GLOO_SOCKET_IFNAME", "OMP_NUM_THREADS"),
)


@contextmanager
def _connected(placement: Placement, device: torch.device) -> Iterator[None]:
    """Join the processes' group, with an equal part of the cores; then give them back."""
    threads = torch.get_num_threads()
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        if placement.address is not None:
            host, port = placement.address
            os.environ |= {
                "MASTER_ADDR": host,
                "MASTER_PORT": str(port),
                "LOCAL_RANK": str(placement.local_rank),
                "NODE_RANK": "0",
            }
            if Path("/sys/class/net/lo").exists():
                # All on this machine: what they send does not leave it.
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _launch(placement, device)
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _launch(placement: Placement, device: torch.device) -> None:
    lightning = required_fabric()
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces itself
    try:
        fabric = lightning.Fabric(
            accelerator=device.type,
            devices=placement.local_count,
            num_nodes=placement.count // placement.local_count,
            strategy=DDPStrategy(timeout=_MEETING),
            # Where a scheduler started the processes, Fabric finds out which one, and asks it.
            plugins=None if placement.address is None else [LightningEnvironment()],
        )
        fabric.launch()
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            Setting("devices"), f": {placement.count} processes cannot be joined here: {reason}"
        ) from None


def required_fabric() -> Any:
    """Lightning Fabric.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import lightning_fabric
    except ImportError:
        raise ConfigError(
            "several devices need Lightning Fabric, which is not installed: pip install "
            "'dpsd[devices]'"
        ) from None
    return lightning_fabric

"""Several processes that play one run, joined by torch.distributed.

They talk in two groups. Gradients are averaged in the default one, over NCCL between GPUs, and by
torch's own engine for that, :class:`~torch.nn.parallel.DistributedDataParallel`. All else goes over
TCP, where the end of one process is seen by the others at once, and with patience for long rounds.

>>> group = Group(Placement(rank=1, count=2, local_count=2), torch.device("cpu"))
>>> group.leads, group.share(256)
(False, Share(rows=slice(128, 256, None), weight=0.5))
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dpsd.devices.messages import described, packed, recalled, unpacked
from dpsd.devices.placement import Placement
from dpsd.devices.processes import Processes, Share, StoppedError
from dpsd.errors import ConfigError, RunError, Setting

#: How long processes wait for each other outside training: a round may take process 0 that long.
_PATIENCE = timedelta(days=7)

#: How long they wait as they join, and for each other's gradients.
_MEETING = timedelta(minutes=5)

#: Where the process that failed first says why.
_FAILURE = "failure"

#: Seconds for which a process that others started stays silent, so that process 0 speaks first.
_GRACE = 3.0

#: What joins processes that a scheduler started, from one run to the next: they meet only once.
_LASTING: list[Any] = []


class Followers(Protocol):
    """Processes that process 0 starts itself; see :mod:`dpsd.transcription.launching`."""

    def start(self) -> tuple[str, int]:
        """Start them, and wait until they are ready; returns where process 0 will be found."""

    def stop(self) -> None:
        """End them, whatever they are doing."""


class Group(Processes):
    """Several processes, joined while the context is open.

    Args:
        placement: which of them this is.
        device: the one this process computes on.
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
            stack.enter_context(_part_of_the_cores(self._placement.local_count))
            failed.callback(_part)
            if not _LASTING:
                _LASTING.extend(_joined(self._placement, self._device))
                if self._placement.is_scheduled:
                    atexit.register(_part)  # NCCL complains of groups that nobody left
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
            if error is not None or not self._placement.is_scheduled:
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
        own = packed(() if rows is None else (rows,))
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        own_size = torch.tensor([len(own)])
        self._wait(lambda: dist.all_gather(sizes, own_size, group=self._talk, async_op=True))
        most = int(torch.cat(sizes).max())
        padded = torch.cat([own, own.new_zeros(most - len(own))])
        found = [torch.empty_like(padded) for _ in range(self.count)]
        self._wait(lambda: dist.all_gather(found, padded, group=self._talk, async_op=True))
        parts = [unpacked(part[: int(size)]) for part, size in zip(found, sizes, strict=True)]
        return torch.cat([tensor for tensors in parts for tensor in tensors])

    def share(self, total: int) -> Share:
        # BatchNorm needs two rows; a process for which there are none computes on some for nothing.
        sharing = max(1, min(self.count, total // 2))
        if self.rank >= sharing:
            return Share(slice(0, min(2, total)), 0.0)
        start, stop = (total * part // sharing for part in (self.rank, self.rank + 1))
        return Share(slice(start, stop), (stop - start) / total)

    @contextmanager
    def training(self, module: nn.Module) -> Iterator[nn.Module]:
        self.copy(module)
        whole = module.register_forward_hook(_with_every_weight)
        try:
            with self._heard():
                yield _parallel(module)
        finally:
            whole.remove()
        self._settle(module)

    def backward(self, loss: Tensor, share: Share) -> None:
        # The engine takes the mean over the processes, whose shares are not all the same.
        torch.autograd.backward(loss * (share.weight * self.count))

    def combine(self, value: Tensor) -> Tensor:
        total = value.detach().cpu().clone()
        self._wait(lambda: dist.all_reduce(total, group=self._talk, async_op=True))
        return total

    def _settle(self, module: nn.Module) -> None:
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
        data = torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([-1])
        if self.leads and tensors is not None:
            data = packed(tensors)
            size = torch.tensor([len(data)])
        self._wait(lambda: dist.broadcast(size, 0, group=self._talk, async_op=True))
        if size < 0:
            return None
        if not self.leads:
            data = torch.empty(int(size), dtype=torch.uint8)
        self._wait(lambda: dist.broadcast(data, 0, group=self._talk, async_op=True))
        return tensors if self.leads else unpacked(data)

    def _wait(self, begin: Callable[[], Any]) -> None:
        """Until all processes have done their part, or one has failed."""
        try:
            work = begin()
            # In slices, as nothing interrupts a process that waits in the library.
            waited = 1e-4
            while not work.is_completed():
                time.sleep(waited)
                waited = min(0.05, 1.5 * waited)
            work.wait()
        except RuntimeError:
            failure = self._failure()
        else:
            return
        raise failure  # outside the handler: the transport's own words help nobody

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """What the engine cannot send or receive is another process's failure; all else is ours."""
        try:
            yield
        except RuntimeError as error:
            # NCCL's errors have a class of their own; Gloo's name the file that they come from.
            if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):
                raise
            failure = self._failure()
        else:
            return
        raise failure

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


def _joined(placement: Placement, device: torch.device) -> tuple[Any, Any]:
    """Join the processes' groups; returns the one to talk in, and a place for last words.

    Raises:
        ConfigError: the processes do not find each other.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined, unused-ignore]
    from torch.distributed.rendezvous import rendezvous

    try:
        with _environment(placement):
            # The store is with process 0, or with torchrun, and outlives a process's connections.
            meeting = rendezvous("env://", placement.rank, placement.count, timeout=_MEETING)
            store, rank, count = next(meeting)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            if not dist.is_initialized():  # by a script, under a scheduler
                dist.init_process_group(
                    "nccl" if device.type == "cuda" else "gloo",
                    store=PrefixStore("gradients", store),
                    rank=rank,
                    world_size=count,
                    timeout=_MEETING,
                )
            talk = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            Setting("devices"), f": {placement.count} processes cannot be joined here: {reason}"
        ) from None
    return talk, PrefixStore("notes", store)


@contextmanager
def _environment(placement: Placement) -> Iterator[None]:
    """Tell torch where process 0 is, as it expects to be told."""
    assert placement.address is not None
    host, port = placement.address
    told = {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    if not placement.is_scheduled and Path("/sys/class/net/lo").exists():
        # All are on this machine: what they send does not leave it.
        told["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    before = {name: os.environ.get(name) for name in told}
    os.environ |= told
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _part_of_the_cores(processes: int) -> Iterator[None]:
    """Compute with this process's share of the machine, unless it was told how many threads."""
    threads = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, threads // processes))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _part() -> None:
    """Leave the processes' groups: the others learn of it at once."""
    _LASTING.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def _with_every_weight(module: nn.Module, inputs: Any, logits: Tensor) -> Tensor:
    """Logits as they are, but to the engine they depend on each of the module's weights.

    The engine waits for a gradient of every weight, and a model need not use all of them, nor the
    same ones in every step. Its own answer to that, to search the graph in every step for weights
    without one, announces itself on standard error.
    """
    weights = (weight.sum() for weight in module.parameters() if weight.requires_grad)
    return logits + 0 * sum(weights)


def _parallel(module: nn.Module) -> DistributedDataParallel:
    """A module for torch's engine; its buffers stay this process's own until training ends."""
    # Renamed in torch 2.13.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = next(name for name in ("forward_sync_buffers", "broadcast_buffers") if name in known)
    own: dict[str, Any] = {buffers: False}
    return DistributedDataParallel(module, **own)

"""The processes of a run and their communication; a single process has none."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from trilemma.errors import PluginUnavailable, TrilemmaError, UsageError

T = TypeVar("T")
_LOCK = threading.Lock()


def _leave() -> None:
    """Leaves the group of processes, a thread of which would abort a process that ends while it runs."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Processes:
    """The rank of this process, the number of all and its device, as Accelerate finds them.

    Only the processes and their device come from the environment; the recipe decides how a step is computed.

    Attributes:
        rank, world: number of this process, and how many there are.
        device: where the network goes.
        main: whether this process writes.

    Raises:
        PluginUnavailable: without the package accelerate.
        UsageError: where the processes do not find each other.
    """

    def __init__(self) -> None:
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise PluginUnavailable(
                f'training needs the package accelerate ({error}); pip install "trilemma[train]"'
            ) from error
        cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "y", "on")
        # Without this, Accelerate takes torchrun's processes for single ones.
        cpu |= not torch.accelerator.is_available()
        try:
            with _LOCK:
                state = PartialState(cpu=cpu)
        except Exception as error:
            reason = " ".join(str(error).split())[:150]
            raise UsageError(
                f"the processes of the run do not start: {reason}; see accelerate env, or train with one process"
            ) from error
        self.rank, self.world = int(state.process_index), int(state.num_processes)
        if self.world == 1 and "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
            raise UsageError(
                f"{os.environ['WORLD_SIZE']} processes were launched and this one runs alone, since Accelerate was set "
                "up for one before; train in a fresh process"
            )
        if self.world > 1:
            atexit.register(_leave)
        self.device = cast(torch.device, state.device)
        self.main = self.rank == 0

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.world > 1:
            with _together():
                torch.distributed.barrier()

    def agree(self, work: Callable[[], T]) -> T:
        """Returns, in every process, the result of `work`, which the main one alone runs; an error is raised in all.

        Raises:
            TrilemmaError: that `work` raised.
        """
        if self.world == 1:
            return work()
        told: list[Any] = [None]
        if self.main:
            try:
                told = [(work(), None)]
            except TrilemmaError as error:
                told = [(None, error)]
        with _together():
            torch.distributed.broadcast_object_list(told, src=0)
        result, failure = told[0]
        if failure is not None:
            raise failure
        return cast(T, result)

    def same(self, module: nn.Module) -> None:
        """Gives every process the main one's parameters and buffers."""
        if self.world > 1:
            with _together():
                for tensor in module.state_dict().values():
                    torch.distributed.broadcast(tensor.detach(), src=0)

    def share_buffers(self, modules: Iterable[nn.Module]) -> None:
        """Gives every process the main one's buffers, such as running statistics, after a step."""
        if self.world == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for module in modules:
            for buffer in module.buffers():
                by_dtype.setdefault(buffer.dtype, []).append(buffer)
        for group in by_dtype.values():
            flat = torch.cat([buffer.flatten() for buffer in group])
            with _together():
                torch.distributed.broadcast(flat, src=0)
            for buffer, part in zip(group, flat.split([entry.numel() for entry in group]), strict=True):
                buffer.copy_(part.view_as(buffer))

    def mean(self, value: Tensor) -> Tensor:
        """Returns the mean of a tensor over the processes."""
        if self.world == 1:
            return value
        total = value.clone()
        with _together():
            torch.distributed.all_reduce(total)
        return total / self.world

    def any(self, value: bool) -> bool:
        """Returns whether a value is true in any process."""
        if self.world == 1:
            return value
        found = torch.tensor(int(value), device=self.device)
        with _together():
            torch.distributed.all_reduce(found)
        return bool(found)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes; a gradient that this process lacks counts as zero.

        All gradients of a dtype are summed as one vector in the order of the parameters. So the sums are the same bits
        in a run that was resumed, whatever order a backend adds in.
        """
        if self.world == 1:
            return
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                by_dtype.setdefault(parameter.dtype, []).append(parameter)
        for group in by_dtype.values():
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            with _together():
                torch.distributed.all_reduce(flat)
            flat /= self.world
            for parameter, part in zip(group, flat.split([p.numel() for p in group]), strict=True):
                parameter.grad = part.view_as(parameter)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:100]
        raise TrilemmaError(
            f"another process of the run is gone ({reason}); see its error, then start the same command again"
        ) from error

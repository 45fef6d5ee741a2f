"""One process, or several that share each batch (`torchrun`), told apart by the environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jobs.textdiff import utilisation
from jobs.textdiff.errors import PlaceError

BY_TORCHRUN = "torchrun sets it: a job started without it needs none of RANK and WORLD_SIZE"


@dataclass(frozen=True, slots=True)
class World:
    rank: int
    size: int
    device: torch.device
    peak: float | None = None  # operations a second of one device, where it is known

    @property
    def first(self) -> bool:
        """The one that writes files and speaks."""
        return self.rank == 0

    def share(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """This process's rows of each tensor, on its device."""
        return [x[self.rank :: self.size].to(self.device) for x in rows]

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes. Every weight has one in each
        step, also where a process's share is no text, so none has to be looked for."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module)

    def any(self, value: bool) -> bool:
        """Whether it is so in any process: all go on, or none does."""
        if self.size == 1:
            return value
        flag = torch.tensor(int(value), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def total(self, value: Tensor) -> float:
        """The sum over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return float(value)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """All processes are here."""
        if self.size > 1:
            dist.barrier()


def rank_of(env: Mapping[str, str]) -> str:
    """As torchrun says it; without WORLD_SIZE a process is alone, whatever RANK is left over."""
    return env.get("RANK", "0") if "WORLD_SIZE" in env else "0"


def world(env: Mapping[str, str] = os.environ) -> World:
    """This process's place; under torchrun the group is joined (nccl on GPUs, gloo without).

    PlaceError: the variables that torchrun sets do not tell a place.
    """
    size, rank, local = _place(env)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda and local and local >= torch.cuda.device_count():
        raise PlaceError(
            f"LOCAL_RANK: {local}, but of GPUs there are {torch.cuda.device_count()}; {BY_TORCHRUN}"
        )
    if cuda:
        torch.cuda.set_device(device)
        _without_cudnn_attention()
    if size > 1:
        dist.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=size)
    return World(rank, size, device, utilisation.peak(device))


def _place(env: Mapping[str, str]) -> tuple[int, int, int]:
    """(how many processes, which one this is, and which one on its machine)"""
    if "WORLD_SIZE" not in env:
        return 1, 0, 0
    found = []
    for name, default in (("WORLD_SIZE", ""), ("RANK", "0"), ("LOCAL_RANK", "0")):
        told = env.get(name, default)
        if not (told.isascii() and told.isdigit()):
            raise PlaceError(f"{name}: {told[:40]!r} is no number of processes; {BY_TORCHRUN}")
        found.append(int(told))
    size, rank, local = found
    if not rank < size:
        raise PlaceError(f"RANK: {rank} is not below WORLD_SIZE {size}; {BY_TORCHRUN}")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if size > 1 and not env.get(name):
            raise PlaceError(f"{name} is not set, but WORLD_SIZE is {size}; {BY_TORCHRUN}")
    port = env.get("MASTER_PORT", "")
    if size > 1 and not (port.isascii() and port.isdigit()):
        raise PlaceError(f"MASTER_PORT: {port[:40]!r} is no port; {BY_TORCHRUN}")
    return size, rank, local


def _without_cudnn_attention() -> None:
    """Of torch's attention kernels, cuDNN's are left out.

    They make a plan for every new length of a batch, which took longer than the step (0.2 s instead
    of 0.07 s on an H200). And two runs whose batches had padding, and so a mask, ended in gradients
    that were NaN (torch 2.11; github.com/pytorch/pytorch issue 196678 tells of the same), while one
    without a mask did not.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def named(world: World) -> str:
    """The device in words: the GPU's name, or the CPU's and how many threads are used."""
    if world.device.type == "cuda":
        return torch.cuda.get_device_name(world.device)
    model = "cpu"
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf8") as file:
        names = [line.partition(":")[2] for line in file if line.startswith("model name")]
        model = names[0].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def leave(world: World) -> None:
    """The group is gone; none leaves while another still needs it."""
    if world.size > 1:
        dist.barrier()
        dist.destroy_process_group()

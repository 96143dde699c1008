"""Several processes that work on one run together, as torchrun starts them; one alone without it."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist


def join() -> torch.device:
    """Meet the other processes, if torchrun started any, and take a device: a GPU each, or the CPU.

    Returns:
        The device of this process.
    """
    if not torch.cuda.is_available():
        device = torch.device("cpu")
    else:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def backend() -> str | None:
    """What they talk through."""
    return dist.get_backend() if are_several() else None


def are_several() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def count() -> int:
    """How many there are."""
    return dist.get_world_size() if are_several() else 1


def rank() -> int:
    """Which of them this is; the first, 0, writes what is written once."""
    return dist.get_rank() if are_several() else 0


def is_first() -> bool:
    """Whether this process is the first, which is known before they meet."""
    return int(os.environ.get("RANK", 0)) == 0


def wait() -> None:
    """Go on when all have come here."""
    if are_several():
        dist.barrier()


def mean(values: torch.Tensor) -> torch.Tensor:
    """The processes' mean of each value."""
    if not are_several():
        return values
    gathered = [torch.empty_like(values) for _ in range(count())]
    dist.all_gather(gathered, values)
    return torch.stack(gathered).mean(dim=0)


def take_largest(value: torch.Tensor) -> None:
    """Make a value, in place, the largest that a process has."""
    if are_several():
        dist.all_reduce(value, dist.ReduceOp.MAX)


def agree(decision: bool, device: torch.device) -> bool:
    """The first process's decision."""
    if not are_several():
        return decision
    told = torch.tensor(int(decision), device=device)
    dist.broadcast(told, src=0)
    return bool(told)


def is_first_to_fail() -> bool:
    """Whether no other process of this run has asked before: the first that fails tells why, the others end silently.

    Asked at the meeting point of torchrun, which is there before the processes have met and after one has died.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return True
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=10))
        return store.add(f"obert/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except dist.DistError:
        return rank() == 0


def is_of_another(error: Exception) -> bool:
    """Whether an error says that another process has gone: gloo's are plain RuntimeErrors."""
    return are_several() and (isinstance(error, dist.DistError) or "gloo" in str(error))

"""Memory that is free, and memory that was used."""

import resource
import sys
from typing import Any


def free_memory(device: Any) -> int:
    """Bytes that are free on a torch device, or in this machine's memory."""
    import psutil
    import torch

    if device.type != "cuda":
        return psutil.virtual_memory().available
    # What torch's allocator holds and does not use is free for torch, though not for the driver.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6

"""The card, its driver's and the libraries' versions."""

import importlib.metadata
import platform

import torch
from measuring import Options, run_part

PACKAGES = ("transformers", "accelerate", "datasets", "tokenizers", "numpy")


def measure(options: Options) -> dict:
    """Versions, compute capability and memory."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    if options.device.type == "cuda":
        properties = torch.cuda.get_device_properties(options.device)
        found |= {
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gb": properties.total_memory / 1e9,
            "cuda": torch.version.cuda,
        }
    return found


if __name__ == "__main__":
    run_part(measure, __doc__)

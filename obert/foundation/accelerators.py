"""Accelerators of this machine, counted without importing torch."""

import os
import subprocess


def gpu_count() -> int:
    """NVIDIA GPUs that a job may use: those that `CUDA_VISIBLE_DEVICES` names, or all that `nvidia-smi` lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    try:
        done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())

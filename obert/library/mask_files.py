"""Masks as a safetensors file."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.library.layers import check_mask, check_masks
from obert.masks.selection import Masks

KIND = "obert.masks"


def save_masks(masks: Masks, path: str | Path) -> None:
    """Write masks, such as a report's, as a safetensors file, whole or not at all.

    Raises:
        UserError: they are no masks.
    """
    check_masks(masks)
    for name, mask in masks.items():
        check_mask(name, mask, mask)
    with atomic_path(Path(path)) as temporary:
        save_file({name: mask.contiguous() for name, mask in masks.items()}, temporary, {KIND: ""})


def load_masks(path: str | Path) -> Masks:
    """What `save_masks` wrote, on the CPU: for `prune`, `hold_masks` or a `GradualPruner`.

    Raises:
        UserError: it is no such file.
    """
    return read_tensors(Path(path), KIND)[0]


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a safetensors file of this project, and what it says under its kind.

    Raises:
        UserError: there is no file, or one of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as a safetensors file: {error}") from None
    if kind not in about:
        raise UserError(f"{path} is no file of {kind}. It holds {', '.join(list(tensors)[:3]) or 'nothing'}")
    return tensors, about[kind]

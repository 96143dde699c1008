"""Models as users have them, folders of Hugging Face models and ONNX files, made ready for every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from obert.deployment.agreement import Expected
from obert.deployment.export import FILE_NAME, export_onnx
from obert.deployment.integer_graph import to_integer
from obert.deployment.latency import random_inputs
from obert.deployment.onnx_contents import Contents, read_contents, read_inputs
from obert.engines import Engine, EngineError, ModelFiles
from obert.engines.onnxruntime import OnnxRuntime
from obert.engines.pytorch import PyTorch
from obert.experiment.schema import Scenario
from obert.foundation.errors import UserError
from obert.models.encoders import QUANTIZED, QUANTIZED_WEIGHTS, load_float, load_trained, save, understood
from obert.models.loading import load_tokenizer, load_weights, read_config
from obert.models.positions import check_length
from obert.records.record import MODEL

CONFIG = "config.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Outputs:
    """What an export asks of a head: the names of a model's outputs, whatever it was trained for."""

    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """A model that is ready to be timed.

    Attributes:
        path: where the user has it.
        files: what engines read. Of an ONNX file there is no trained model.
        is_folder: whether there is one.
        expected: what the engines are to put out.
    """

    path: Path
    files: ModelFiles
    is_folder: bool
    contents: Contents
    expected: Expected

    def unfit_reason(self, engine_class: type[Engine]) -> str | None:
        """None if an engine can time this model, else one line that says why not."""
        if engine_class.reads_trained and not self.is_folder:
            return f"{engine_class.label} runs the folder of a model, and this is an ONNX file"
        reason = engine_class.unfit_reason(self.files)
        return None if reason is None else self.named(reason)

    def named(self, text: str) -> str:
        """A text that names the model where the user has it, and not an export that is gone afterwards."""
        return text.replace(str(self.files.onnx), str(self.path))


def look_at(path: Path, scenarios: Sequence[Scenario]) -> Path:
    """The file or the folder that a user's path leads to, after every check that takes little time.

    Raises:
        UserError: there is no model, its weights are pickles, its class is not one of Transformers', it has no
            tokenizer, or it is not made for one of the scenarios.
    """
    if path.is_file():
        if path.suffix in (".safetensors", ".json"):
            raise UserError(f"{path} is one file of a model: name its folder, {path.parent}")
        sizes = read_inputs(path)
        for scenario in scenarios:
            _check_sizes(sizes, scenario, path)
        return path
    if not path.is_dir():
        raise UserError(
            f"{path}: no such file or folder. Name the folder of a Hugging Face model, or an ONNX file, on this machine"
        )
    folder = path / MODEL if (path / MODEL / CONFIG).is_file() else path  # of a run
    files = sorted(folder.glob("*.onnx"))
    instead = f". It holds {files[0].name}: name that file" if files else ""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{path} has no {CONFIG}, so it is no folder of a Hugging Face model{instead}")
    if not any(folder.glob("*.safetensors")):
        if pickles := sorted(found.name for kind in _PICKLES for found in folder.glob(kind)):
            raise UserError(
                f"{folder} has its weights in {pickles[0]}, a pickle, which can run any code and is not read. Write "
                "them as model.safetensors: load the model where you trust it, and call "
                "save_pretrained(folder, safe_serialization=True)"
            )
        raise UserError(f"{folder} has no weights: model.safetensors is expected beside {CONFIG}{instead}")
    if (folder / QUANTIZED).is_file() and not (folder / QUANTIZED_WEIGHTS).is_file():
        raise UserError(f"{folder} is of a model in 8 bits, and lacks {QUANTIZED_WEIGHTS}: make the model again")
    config = read_config(folder, str(folder))
    name = (config.architectures or [""])[0]
    if not isinstance(getattr(transformers, name or "-", None), type):
        what = f"the class {name}, which Transformers does not have" if name else "no class"
        raise UserError(
            f"{folder / CONFIG}, architectures: it names {what}. Save the model by save_pretrained of a class of "
            "Transformers; code that comes with a model is not run"
        )
    check_length(config, max(scenario.sequence_length for scenario in scenarios), "--lengths")
    load_tokenizer(folder)
    return folder


def prepare(path: Path, place: Path, scratch: Path, scenarios: Sequence[Scenario]) -> Given:
    """Export what is not exported, and find out what the model puts out.

    Args:
        path: as the user has it.
        place: as `look_at` returns it. Nothing is written there.
        scratch: an empty folder, for files that are needed until the model has been timed.

    Raises:
        UserError: the model cannot be loaded or exported, the export does not put out what the model does, or the model
            cannot run one of the scenarios.
    """
    files = _exported(place, scratch) if place.is_dir() else ModelFiles(place, place.parent, None)
    contents = read_contents(files.onnx)
    first, longest = scenarios[0], max(scenario.sequence_length for scenario in scenarios)
    try:
        if reason := OnnxRuntime.unfit_reason(files):
            raise EngineError(reason)
        runtime = OnnxRuntime(files, 1)
        runtime.run(random_inputs(contents.vocabulary, first.batch_size, longest, seed=0))
    except Exception as error:  # whatever the library raises
        raise UserError(f"{path} cannot be run by ONNX Runtime on {longest} tokens: {_first_line(error)}") from error
    reference = PyTorch(files, 1) if place.is_dir() else runtime
    shape = first.batch_size, first.sequence_length
    expected = Expected.of(reference, contents.vocabulary, shape, contents.in_8_bits > 0)
    if reference is not runtime:
        try:
            expected.require(runtime)
        except EngineError as error:
            raise UserError(
                f"{path}: the exported model is not the one in the folder. {error}. Report the architecture; the ONNX "
                "file of another exporter can be timed"
            ) from None
    return Given(path, files, place.is_dir(), contents, expected)


def _check_sizes(inputs: Mapping[str, tuple[int | None, int | None]], scenario: Scenario, path: Path) -> None:
    """Raise UserError if a file's inputs have another size than a scenario's."""
    asked = {"--batch-sizes": scenario.batch_size, "--lengths": scenario.sequence_length}
    for name, sizes in inputs.items():
        for (option, value), size in zip(asked.items(), sizes, strict=True):
            if size is not None and size != value:
                raise UserError(
                    f"{path} is made for {name} of {_sizes(sizes)} alone: give {option} {size}, or export it with "
                    "dynamic axes"
                )


def _sizes(sizes: tuple[int | None, int | None]) -> str:
    return " x ".join("any" if size is None else str(size) for size in sizes)


def _exported(folder: Path, scratch: Path) -> ModelFiles:
    """The float or integer export of a folder's model, and the folder that PyTorch is to load."""
    tokenizer = load_tokenizer(folder)
    quantized = (folder / QUANTIZED).is_file()
    if quantized:
        network = load_float(folder, attn_implementation="eager")
    else:
        config = read_config(folder, str(folder))
        kind = getattr(transformers, config.architectures[0])
        # A checkpoint may lack a head, or have one of another task: that changes no time.
        network = load_weights(kind, folder, str(folder), new_head=True, config=config, attn_implementation="eager")
    network.eval()
    understood(network, tokenizer)
    files = ModelFiles(scratch / FILE_NAME, folder if quantized else scratch / MODEL, None)
    try:
        export_onnx(network, Outputs(_outputs(network)), files.onnx, tokenizer.model_input_names)
        if quantized:
            to_integer(files.onnx, load_trained(folder, attn_implementation="eager"))
    except UserError:
        raise
    except Exception as error:  # whatever the exporter raises
        raise UserError(
            f"{folder}: {type(network).__name__} (model_type {network.config.model_type}) cannot be exported to ONNX: "
            f"{_first_line(error)}. The ONNX file of another exporter can be timed"
        ) from error
    if not quantized:
        save(network, tokenizer, files.trained)
    return files


def _outputs(network: PreTrainedModel) -> tuple[str, ...]:
    """The names of what a model puts out."""
    tokens = torch.zeros((2, 8), dtype=torch.long)
    try:
        with torch.inference_mode():
            found = network(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{type(network).__name__} does not run on input_ids [sequences, tokens]: {_first_line(error)}. Only such "
            "models can be timed"
        ) from None
    others = [name for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(f"{type(network).__name__} puts out {', '.join(others)}, in lists: leave that out of {CONFIG}")
    return tuple(found)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

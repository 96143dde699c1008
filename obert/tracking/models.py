"""Exported models in MLflow, as `mlflow.onnx` and `mlflow.pyfunc` load them: nothing pickled, no code of a model's own.

The file is the very one that was checked and timed. Trained models stay in their runs' folders: there are many more, of
which MLflow's Transformers flavour could load neither the quantised ones as they are nor those for question answering
as a pipeline.
"""

import tempfile
from pathlib import Path
from typing import Any

import yaml

from obert.tracking.snapshot import Snapshot

NAME = "model"  # runs:/<run>/model


def log_model(client: Any, experiment: str, run: str, taken: Snapshot, tags: dict[str, str]) -> None:
    """Log the model of an export run, with the tokenizer that it was trained with; nothing if the file is gone."""
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    file = next(taken.folder.glob("*.onnx"), None)
    if file is None:
        return
    logged = client.create_logged_model(experiment, NAME, run, tags=tags, model_type="ONNX")
    identifier = logged.model_id
    client.log_outputs(run, [LoggedModelOutput(identifier, step=0)])
    model = Model(
        artifact_path=logged.artifact_location,
        run_id=run,
        model_uuid=identifier,
        model_id=identifier,
        signature=_signature(file),
    )
    environment = taken.record.environment
    versions = environment["packages"]
    pyfunc.add_to_model(model, loader_module="mlflow.onnx", data=file.name, python_env="python_env.yaml")
    model.add_flavor("onnx", onnx_version=versions["onnx"], data=file.name, providers=["CPUExecutionProvider"])
    python = {"python": environment["python"], "dependencies": ["-r requirements.txt"]}
    requirements = [f"{name}=={versions[name]}" for name in ("numpy", "onnx", "onnxruntime")]
    with tempfile.TemporaryDirectory() as temporary:
        model.save(str(Path(temporary) / "MLmodel"))
        (Path(temporary) / "python_env.yaml").write_text(yaml.safe_dump(python))
        (Path(temporary) / "requirements.txt").write_text("\n".join(["mlflow", *requirements]) + "\n")
        client.log_model_artifacts(identifier, temporary)
    client.log_model_artifact(identifier, str(file))
    for part in sorted(taken.folder.glob("tokenizer/*")):
        client.log_model_artifact(identifier, str(part), "tokenizer")
    client.finalize_logged_model(identifier, "READY")


def delete_models(client: Any, experiment: str, run: str) -> None:
    """Delete what was logged for a run."""
    for model in client.search_logged_models([experiment], f"source_run_id = '{run}'"):
        client.delete_logged_model(model.model_id)


def _signature(file: Path) -> Any:
    """The model's inputs and outputs, as the file has them."""
    import numpy as np
    import onnxruntime
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    types = {"tensor(int64)": np.dtype("int64"), "tensor(float)": np.dtype("float32")}

    def schema(tensors: list) -> Schema:
        dynamic = [tuple(size if isinstance(size, int) else -1 for size in tensor.shape) for tensor in tensors]
        return Schema([TensorSpec(types[t.type], shape, t.name) for t, shape in zip(tensors, dynamic, strict=True)])

    return ModelSignature(schema(session.get_inputs()), schema(session.get_outputs()))

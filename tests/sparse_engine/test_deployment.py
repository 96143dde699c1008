"""The example of a deployment, where nothing but NumPy and Numba can be imported."""

import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sparse_inference.py"
PACKAGES = ("numpy", "numba", "llvmlite", "obert")
FORBIDDEN = ("torch", "onnx", "onnxruntime", "transformers", "tokenizers", "scipy", "pydantic", "yaml", "pytest")
# Without site-packages (-S), and without what the environment or the working folder would add (-I).
START = """
import runpy, sys
sys.path[:] = sys.argv[1:4]
from importlib.util import find_spec
print("found", [name for name in sys.argv[4].split(",") if find_spec(name)])
sys.argv = sys.argv[5:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def site_packages(tmp_path):
    """A folder that has the packages of a deployment, with the libraries that their wheels bring, and no other."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    for name in PACKAGES:
        home = Path(find_spec(name).origin).parent
        for source in (home, *home.parent.glob(f"{name}.libs")):
            (folder / source.name).symlink_to(source)
    return folder


# Each compiles its kernels anew, as the packages lie elsewhere.
@pytest.mark.slow
@pytest.mark.parametrize("quantised", [False, True])
def test_the_example_runs_where_there_are_numpy_and_numba_alone(exported, site_packages, quantised):
    path = exported("bert", "sequence_classification")[quantised]
    standard = sysconfig.get_path("stdlib"), sysconfig.get_config_var("DESTSHARED")
    command = [sys.executable, "-I", "-S", "-c", START, *standard, site_packages, ",".join(FORBIDDEN), EXAMPLE, path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=site_packages)
    assert done.returncode == 0, done.stderr
    found, about, classes = done.stdout.splitlines()
    assert found == "found []"
    assert " threads, " in about

    tokens = np.array([[2, 41, 77, 12, 3], [2, 58, 3, 0, 0]])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = {
        "input_ids": tokens,
        "attention_mask": (tokens != 0).astype(np.int64),
        "token_type_ids": np.zeros_like(tokens),
    }
    (logits,) = session.run(None, {declared.name: inputs[declared.name] for declared in session.get_inputs()})
    assert classes == f"classes {logits.argmax(axis=-1).tolist()}"


def test_the_example_is_ten_lines():
    lines = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith('"""')]
    assert len(lines) <= 10

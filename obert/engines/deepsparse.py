"""DeepSparse's sparsity-aware kernels, in a virtual environment and a process of their own.

DeepSparse 1.8.0 is closed source under the Neural Magic DeepSparse Community License, which allows evaluation in
development and testing, and neither production use nor redistribution. It has not been maintained since June 2025.
There are wheels for Python 3.8 to 3.11 on Linux x86-64; the processor must have AVX2.
"""

from pathlib import Path

import numpy as np

from obert.engines import Engine, EngineError, ModelFiles, _deepsparse_log, _deepsparse_worker
from obert.engines._worker import Worker
from obert.foundation.environments import Environment

VERSION = "1.8.0"
COMPILE_SECONDS = 900.0
RUN_SECONDS = 300.0


class DeepSparse(Engine):
    """The exported model, compiled for one shape of inputs at a time and the zeros in its weights.

    A run of another shape than the last compiles first, so the first run is not one to time. What is timed includes the
    way to the worker and back, 0.15 ms at 8 x 128 tokens (`tests/engines/test_worker.py` keeps it below 0.5 ms), which
    counts against this engine. Idle workers wait on a socket and the library's idle threads sleep: they can take turns.
    """

    label = "DeepSparse"
    library = "deepsparse"
    environment = Environment(
        library="deepsparse",
        pythons=("3.11", "3.10", "3.9", "3.8"),
        system="linux",
        machine="x86_64",
        # Its use is reported to nobody. The log is where it says what it does not accelerate.
        # Without VNNI its products of integers are exact, unless it is asked for an emulation that saturates.
        variables={
            "NM_DISABLE_ANALYTICS": "True",
            "NM_LOGGING_LEVEL": "diagnose",
            "NM_FAST_VNNI_EMULATION": "0",
        },
    )

    def __init__(self, model: ModelFiles, threads: int):
        self._path, self._threads = model.onnx.absolute(), threads
        self._shape: tuple[int, ...] | None = None
        self._log = ""
        self._worker = Worker(self.command(), self.environment.variables, self.label)
        if self._worker.version != VERSION:
            raise EngineError(f"{self.label}'s worker has version {self._worker.version}, not {VERSION}")

    @classmethod
    def command(cls) -> list[str]:
        """What starts a worker: isolated, as this folder has files with the names of libraries."""
        return [str(cls.environment.interpreter), "-I", str(Path(_deepsparse_worker.__file__))]

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        shape = inputs["input_ids"].shape
        if shape != self._shape:
            self._compile(shape)
        return self._worker.request({"do": "run", "names": list(inputs)}, list(inputs.values()), seconds=RUN_SECONDS)

    def _compile(self, shape: tuple[int, ...]) -> None:
        before, self._shape = self._worker.log_size(), None
        request = {"do": "compile", "model": str(self._path), "shape": shape, "threads": self._threads}
        self._worker.request(request, seconds=COMPILE_SECONDS)
        self._shape, self._log = shape, self._worker.log(before)
        if self.threads() != self._threads:  # on processors with several threads a core, for one
            raise EngineError(
                f"{self.label} was asked for {self._threads} threads and takes {self.threads()}: it has one for each "
                "physical core that the process may use"
            )

    def threads(self) -> int:
        """The number that the library's log names; before the first run, the number that it will be asked for."""
        return _deepsparse_log.threads(self._log) or self._threads

    def unsupported(self) -> str | None:
        return _deepsparse_log.first_unsupported(self._path, self._log) if self._shape else None

    def version(self) -> str:
        return self._worker.version

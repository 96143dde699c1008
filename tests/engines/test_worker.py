"""The worker process of DeepSparse with a library that a test makes up: every way to fail is told, and none hangs."""

import ast
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from samples import HEADS

from obert.engines import EngineError, ModelFiles, _deepsparse_worker, _worker, deepsparse
from obert.engines._deepsparse_worker import receive, send
from obert.engines.deepsparse import DeepSparse

pytestmark = pytest.mark.skipif(sys.platform != DeepSparse.environment.system, reason="DeepSparse runs on Linux alone")
SCRIPT = Path(_deepsparse_worker.__file__)
LIBRARY = '''
import os, sys, time
import numpy as np
__version__ = "1.8.0"
print("a banner on stdout", flush=True)
os.write(1, b"and one past Python's buffers" + bytes([0, 255, 10]))


class Engine:
    """Answers with twice the ids; what else it does is in the model's file."""
    input_names = ["input_ids", "attention_mask"]

    def __init__(self, path, batch_size, num_cores, input_shapes):
        self.does = open(path).read()
        open(path, "w").write("changed")
        assert batch_size == input_shapes[0][0]
        print(f"[nm >DIAGNOSE< ] == Compiling NM_Subgraph_1 with batch size 2 using {num_cores} threads.", flush=True)
        if self.does == "refuse":
            raise ValueError("no such model")
        self.do("compile")

    def run(self, inputs):
        self.do("run")
        return [(2 * inputs[0]).astype(np.float32), inputs[1]]

    def do(self, moment):
        if self.does == f"crash at {moment}":
            sys.stderr.write("Assertion at planner.hpp\\nBacktrace:\\n 0# 0x00007eff\\n")
            sys.stderr.flush()
            os.abort()
        if self.does == f"hang at {moment}":
            time.sleep(60)
        if self.does == "connect":
            import socket
            socket.create_connection(("127.0.0.1", 9))
'''


@pytest.fixture
def library(tmp_path):
    """A folder with a made-up DeepSparse."""
    (tmp_path / "deepsparse.py").write_text(textwrap.dedent(LIBRARY))
    return tmp_path


@pytest.fixture
def engine(library, tmp_path, monkeypatch):
    """Starts an engine whose model makes the library do something; all of them are ended."""
    started = []

    def start(does="", before="", threads=2):
        code = f"import sys; sys.path.insert(0, {str(library)!r}); import runpy; {before}"
        script = f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        starts_with(monkeypatch, "-c", f"{code}\n{script}")
        model = tmp_path / "model.onnx"
        model.write_text(does)
        started.append(DeepSparse(ModelFiles(model, tmp_path, HEADS["sequence_classification"]), threads))
        return started[-1]

    yield start
    for found in started:
        found._worker.close()


def starts_with(patch, *arguments):
    """Workers are started by the present Python with these arguments."""
    patch.setattr(DeepSparse, "command", staticmethod(lambda: [sys.executable, "-I", *arguments]))


def inputs(rows=2, tokens=5):
    ids = np.arange(rows * tokens, dtype=np.int64).reshape(rows, tokens)
    return {"attention_mask": np.ones_like(ids), "input_ids": ids, "token_type_ids": np.zeros_like(ids)}


def fails(action, *arguments):
    with pytest.raises(EngineError) as caught:
        action(*arguments)
    return str(caught.value)


def is_running(pid):
    """Whether a process runs; one that ended and was not waited for does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_arrays_come_back_as_the_library_gave_them(engine):
    for rows, tokens in ((2, 5), (1, 3), (64, 512)):  # the last is more than a pipe or socket holds at once
        given = inputs(rows, tokens)
        doubled, mask = engine().run(given)
        assert doubled.dtype == np.float32
        np.testing.assert_array_equal(doubled, 2 * given["input_ids"])
        np.testing.assert_array_equal(mask, given["attention_mask"])
        assert mask.dtype == np.int64


def test_the_library_writes_to_the_log_alone(engine):
    running = engine()
    running.run(inputs())
    assert "a banner on stdout\nand one past Python's buffers" in running._worker.log()


def test_threads_are_those_the_library_names(engine):
    running = engine(threads=3)
    running.run(inputs())
    assert running.threads() == 3


def test_the_way_to_the_worker_and_back_is_short(engine):
    """It is part of what is timed. The best of many, as other processes may be running."""
    running, given = engine(), inputs(8, 128)
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        running.run(given)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5e-3


def test_another_shape_compiles_again_and_the_file_is_left_alone(engine, tmp_path):
    running = engine("as it was")
    for rows in (2, 2, 3, 2):
        assert running.run(inputs(rows))[0].shape == (rows, 5)
    assert running._worker.log().count("== Compiling") == 3
    assert (tmp_path / "model.onnx").read_text() == "as it was"


def test_an_exception_of_the_library_is_told_and_the_worker_lives(engine):
    running = engine("refuse")
    assert fails(running.run, inputs()) == "DeepSparse, compile: ValueError: no such model"
    assert fails(running.run, inputs()) == "DeepSparse, compile: ValueError: no such model"


@pytest.mark.parametrize("moment", ["compile", "run"])
def test_a_crash_is_told_with_what_was_written_before_the_stack_trace(engine, moment):
    running = engine(f"crash at {moment}")
    message = fails(running.run, inputs())
    assert message.startswith(f"DeepSparse's worker ended at '{moment}' by SIGABRT.\nIt wrote last:\n")
    assert message.endswith("\nAssertion at planner.hpp")
    assert fails(running.run, inputs()) == "DeepSparse's worker has ended"


@pytest.mark.parametrize("moment", ["compile", "run"])
def test_a_worker_that_hangs_is_ended(engine, moment, monkeypatch):
    monkeypatch.setattr(deepsparse, f"{moment.upper()}_SECONDS", 0.3)
    running = engine(f"hang at {moment}")
    pid = running._worker._process.pid
    assert fails(running.run, inputs()).startswith(f"DeepSparse's worker gave no answer to '{moment}' within 0.3 s.")
    assert not is_running(pid)


def test_a_worker_that_does_not_read_is_ended(engine, monkeypatch):
    running = engine()
    running.run(inputs(512, 512))
    monkeypatch.setattr(deepsparse, "RUN_SECONDS", 0.3)
    os.kill(running._worker._process.pid, signal.SIGSTOP)
    assert "gave no answer to 'run' within 0.3 s" in fails(running.run, inputs(512, 512))


def test_a_library_that_cannot_be_imported_is_told(engine, library):
    (library / "deepsparse.py").write_text("raise ImportError('no AVX2 here')")
    message = fails(engine)
    assert message.startswith("DeepSparse's worker ended at 'start' with status 1.")
    assert message.endswith("ImportError: no AVX2 here")


def test_a_worker_that_never_says_hello_is_ended(engine, monkeypatch):
    monkeypatch.setattr(_worker, "START_SECONDS", 0.3)
    assert "gave no answer to 'start' within 0.3 s" in fails(engine, "", "import time; time.sleep(60)")


def test_an_interpreter_that_is_missing_is_told(engine, monkeypatch):
    monkeypatch.setattr(_worker.subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(OSError("no such file")))
    assert fails(engine) == "DeepSparse's worker could not be started: no such file"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b'{"protocol": 7, "version": "1.8.0", "arrays": []}\n', "speaks version 7 of the protocol, not 1"),
        (b'{"protocol": 1, "version": "1.7.0", "arrays": []}\n', "has version 1.7.0, not 1.8.0"),
        (b"Welcome!\n", "answered 'start' with something else than a message: the line b'Welcome!\\n'"),
        (b"[]\n", "something else than a message"),
        (b'{"arrays": [["<f4"]]}\n', "something else than a message"),
        (b'{"arrays": [["|O", [1]]]}\n12345678', "something else than a message"),
        (b"x" * (_deepsparse_worker.LONGEST_LINE + 1), "something else than a message: a line of more than"),
        (b'{"arrays": [["<f4", [2]]]}\n1234', "ended at 'start' with status 0"),
        (b"", "ended at 'start' with status 0"),
    ],
)
def test_what_is_no_message_of_this_protocol(monkeypatch, written, expected):
    code = f"import os, socket; socket.socket(fileno=0).sendall({written[:40]!r} + b'x' * {len(written[40:])})"
    if not written.startswith(b"x"):
        code = f"import os, socket; socket.socket(fileno=0).sendall({written!r})"
    starts_with(monkeypatch, "-c", code)
    assert expected in fails(DeepSparse, ModelFiles(Path("model.onnx"), Path(), None), 1)


def test_no_network_from_the_worker(engine):
    assert fails(engine("connect").run, inputs()) == "DeepSparse, compile: RuntimeError: no network here"


def test_an_engine_that_is_no_longer_used_ends_its_worker(monkeypatch):
    starts_with(monkeypatch, "-c", "import time; time.sleep(60)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_worker.Worker, "_exchange", lambda *_: ({"protocol": 1, "version": "1.8.0"}, []))
        running = DeepSparse(ModelFiles(Path("model.onnx"), Path(), None), 1)
    pid = running._worker._process.pid
    assert is_running(pid)
    del running
    assert not is_running(pid)


@pytest.mark.parametrize("does", ["", "hang at compile"])
def test_a_worker_ends_with_its_parent(library, does):
    """The parent is killed, while its worker waits for a request or is busy."""
    (library / "model.onnx").write_text(does)
    code = f"""
        import sys
        import numpy as np
        from pathlib import Path
        from obert.engines import ModelFiles
        from obert.engines.deepsparse import DeepSparse
        start = "import sys, runpy; sys.path.insert(0, {str(library)!r}); " \\
            "runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        DeepSparse.command = classmethod(lambda cls: [sys.executable, "-I", "-c", start])
        engine = DeepSparse(ModelFiles(Path({str(library / "model.onnx")!r}), Path(), None), 1)
        print(engine._worker._process.pid, flush=True)
        ids = np.ones((2, 4), dtype=np.int64)
        engine.run({{"input_ids": ids, "attention_mask": ids}})
        print("ran", flush=True)
        sys.stdin.read()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])},
    )
    worker = int(parent.stdout.readline())
    if not does:
        assert parent.stdout.readline() == "ran\n"
    assert is_running(worker)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(worker)


def test_messages_of_no_dimension_and_no_rows_come_through():
    first, second = socket.socketpair()
    with first, second, second.makefile("rb") as stream:
        send(first, {"do": "run"}, [np.float64(1.5), np.zeros((0, 3), np.int8), np.ones((2, 2)).T])
        header, (scalar, empty, square) = receive(stream)
    assert header == {"do": "run"}
    assert (scalar.item(), empty.shape, square.shape) == (1.5, (0, 3), (2, 2))


def test_the_worker_runs_on_the_oldest_python_of_its_environment():
    oldest = min(tuple(map(int, version.split("."))) for version in DeepSparse.environment.pythons)
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=oldest)
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {alias.name for n in imported for alias in n.names} | {getattr(n, "module", None) for n in imported}
    assert not any(str(name).startswith("obert") for name in names)

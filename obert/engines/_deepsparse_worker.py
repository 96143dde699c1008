"""The process that runs DeepSparse in its own environment: one file for Python 3.8 on, run by its path.

It needs numpy and deepsparse and imports nothing of this project. Standard input is a socket to the parent, standard
output and standard error are its log. A message is a line of JSON, followed by the bytes of the arrays it announces:

    -> {"protocol": 1, "version": "1.8.0", "arrays": []}                                  the first, unasked
    <- {"do": "compile", "model": path, "shape": [8, 128], "threads": 2, "arrays": []}
    -> {"arrays": []}
    <- {"do": "run", "names": ["input_ids", ...], "arrays": [["<i8", [8, 128]], ...]} and the inputs
    -> {"arrays": [["<f4", [8, 2]]]} and the outputs
    -> {"error": "what the library said", "arrays": []}                                   in place of either answer

It ends when the socket does, or with its parent, however that ends.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np

PROTOCOL = 1
LONGEST_LINE = 1 << 20
_PR_SET_PDEATHSIG = 1


def send(channel, header, arrays=()):
    """Send a message: a mapping that JSON can hold, and arrays of numbers."""
    arrays = [np.ascontiguousarray(array) for array in arrays]
    line = json.dumps(dict(header, arrays=[[array.dtype.str, array.shape] for array in arrays]))
    channel.sendall(line.encode() + b"\n" + b"".join(array.tobytes() for array in arrays))


def receive(stream):
    """The next message from a buffered binary stream: its header and its arrays.

    Raises:
        EOFError: the other side has closed, perhaps within a message.
        ValueError: what came is no message.
    """
    line = stream.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE} bytes")
        raise EOFError
    try:
        header = json.loads(line.decode())
        kinds = [(np.dtype(kind), tuple(shape)) for kind, shape in header.pop("arrays")]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"the line {line[:80]!r}") from None
    arrays = []
    for kind, shape in kinds:
        size = kind.itemsize * int(np.prod(shape))
        content = stream.read(size)
        if len(content) < size:
            raise EOFError
        arrays.append(np.frombuffer(content, kind).reshape(shape))
    return header, arrays


def _end_with_parent():
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _refuse_network(event, arguments):
    """The library reports its use, and asks for the machine's place, unless it is told not to; a second lock."""
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise RuntimeError("no network here")


def _compile(model, shape, threads):
    from deepsparse import Engine

    # Its own kernels need fixed shapes, and it writes them into the file it is given: so it is given a copy, which
    # has no name and is gone with this process.
    with tempfile.TemporaryFile() as copy, Path(model).open("rb") as source:
        shutil.copyfileobj(source, copy)
        copy.flush()
        return Engine(f"/proc/self/fd/{copy.fileno()}", batch_size=shape[0], num_cores=threads, input_shapes=[shape])


def main():
    """Answer one request after the other until the parent closes the socket."""
    _end_with_parent()
    channel = socket.socket(fileno=os.dup(0))
    sys.addaudithook(_refuse_network)
    import deepsparse

    send(channel, {"protocol": PROTOCOL, "version": deepsparse.__version__})
    stream, engine = channel.makefile("rb"), None
    while True:
        try:
            request, arrays = receive(stream)
        except EOFError:
            return
        answer, outputs = {}, []
        try:
            if request["do"] == "compile":
                engine = None  # two at once would take twice the memory
                engine = _compile(request["model"], request["shape"], request["threads"])
            else:
                inputs = dict(zip(request["names"], arrays))
                outputs = engine.run([inputs[name] for name in engine.input_names])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        send(channel, answer, outputs)


if __name__ == "__main__":
    main()

"""A process that imports the model stack once and forks for each job; Linux only, and only while the workflow runs.

    workflow ── starts ──► server (imports on the first job) ── forks ──► handler ── forks ──► worker (runs one script)
    job's script ── Unix socket: description, standard streams ──► handler; exit status back

The server ends with the workflow. A handler ends its worker when the job's own process or the workflow's is gone, so a
cancelled job stops computing. `FFNFOLD_PRELOAD=off` turns it off.
Why this exists: docs/decisions/0002-warm-interpreters.md.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ADDRESS = "FFNFOLD_PRELOAD"
PREFIX = "prefix"  # file beside the socket: a job in another environment (conda) must not use this interpreter
MODULES = (
    "torch",
    "safetensors.torch",
    "scipy.optimize",
    "pandas",
    "transformers",
    "transformers.trainer",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "datasets",
    "evaluate",
    "rouge_score.rouge_scorer",
    "jsonschema",
    "accelerate",
)


def supported() -> bool:
    """Whether this system can fork a loaded interpreter safely and watch processes by file descriptor."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def share_library(folder: Path) -> None:
    """Let every job of this process import the library from `folder`."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder) if not before else f"{folder}{os.pathsep}{before}"


def start() -> None:
    """Start the server for this process and put its address into the environment, which jobs inherit."""
    if os.environ.get(ADDRESS) or not supported():
        return
    folder = tempfile.mkdtemp(prefix="ffnfold-")
    address = str(Path(folder) / "preload.sock")
    subprocess.Popen(
        [sys.executable, "-m", "ffnfold.preload", address, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the workflow; the server follows when that ends
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    deadline = time.monotonic() + 10
    while not os.path.exists(address) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.environ[ADDRESS] = address


def submit(script: str, description: dict[str, Any]) -> int | None:
    """Run a script's `main` in a worker and wait for it.

    Returns:
        The exit status, or None where there is no server to ask and the caller should run the script itself.
    """
    address = os.environ.get(ADDRESS, "")
    if not supported() or not os.path.exists(address):
        return None
    if Path(address).with_name(PREFIX).read_text(encoding="utf-8") != sys.prefix:
        return None
    message = json.dumps(
        {"script": script, "description": description, "environment": dict(os.environ), "directory": os.getcwd()}
    ).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [struct.pack("!I", len(message))], [1, 2])
            connection.sendall(message)
        except OSError:
            return None  # the server is gone and nothing has begun
        answer = connection.recv(4)
    if len(answer) != 4:
        raise RuntimeError(
            "the preloaded interpreter ended before the job did; set FFNFOLD_PRELOAD=off to do without it"
        )
    return struct.unpack("!i", answer)[0]


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    header, descriptors, _, _ = socket.recv_fds(connection, 4, 2)
    length, chunks = struct.unpack("!I", header)[0], []
    while length:
        chunk = connection.recv(min(length, 1 << 20))
        if not chunk:
            raise ConnectionError("the job's process ended while it described the job")
        chunks.append(chunk)
        length -= len(chunk)
    return json.loads(b"".join(chunks)), list(descriptors)


def _work(request: dict[str, Any], descriptors: list[int]) -> int:
    """In the worker: take over the job's streams, environment and folder, and run the script."""
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that temporary files are removed
    for target, source in enumerate(descriptors, start=1):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    from ffnfold.jobs import execute

    return execute(runpy.run_path(request["script"])["main"], request["description"])


def _handle(connection: socket.socket, workflow: int) -> None:
    """In the handler: fork the worker, wait for it or for the job's process or the workflow's to go, and answer."""
    request, descriptors = _receive(connection)
    worker = os.fork()
    if worker == 0:
        connection.close()
        status = 1
        try:
            status = _work(request, descriptors)
        finally:
            os._exit(status)
    for descriptor in descriptors:
        os.close(descriptor)
    done = os.pidfd_open(worker)
    try:
        gone = [connection, os.pidfd_open(workflow)]
    except ProcessLookupError:
        gone = []
    ready = select.select([done, *gone], [], [])[0] if gone else []
    if done not in ready:  # the job's process is gone (it never sends more than its request), or the whole workflow is
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)
        if not select.select([done], [], [], 10)[0]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    _, raw = os.waitpid(worker, 0)
    with contextlib.suppress(OSError):
        connection.sendall(struct.pack("!i", os.waitstatus_to_exitcode(raw)))


def serve(address: str, parent: int) -> None:
    """Accept jobs until the workflow's process `parent` is gone."""
    loaded = False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            Path(address).with_name(PREFIX).write_text(sys.prefix, encoding="utf-8")
            listener.bind(address)
            os.chmod(address, 0o600)
            listener.listen(256)
            listener.settimeout(0.5)
            while os.getppid() == parent:
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                if not loaded:
                    for module in MODULES:
                        importlib.import_module(module)
                    gc.collect()
                    gc.freeze()  # keeps the shared pages shared after the fork
                    loaded = True
                connection.settimeout(None)
                if os.fork() == 0:
                    listener.close()
                    status = 1
                    try:
                        _handle(connection, parent)
                        status = 0
                    finally:
                        os._exit(status)
                connection.close()
    finally:
        shutil.rmtree(Path(address).parent, ignore_errors=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))

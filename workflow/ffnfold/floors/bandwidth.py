"""Floor of latency: a token cannot be generated faster than the weights can be read from memory.

With a KV cache at batch size 1 each token reads every weight once: one row of the token embedding on the way in, all
of it in the tied head on the way out. So generated tokens x the time to read the weights bounds a generation from
below. It leaves out the KV cache, activations, all arithmetic and everything that Python does: a model near the bound
is limited by memory, one far above it by something else. Weights that fit a cache are read from there, and so is the
buffer that is timed: the bound holds for small models, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ffnfold.records import Value

if TYPE_CHECKING:
    from torch import nn

FLOAT_BYTES = 4
LONGEST_ROW = 1024  # floats in a row of the matrix: about a hidden size, so the vector stays in the first cache
WARMUP = 2
CUDA_CALLS = 10  # launched together for one reading, so that only the first launch is waited for


def read_bytes(model: nn.Module) -> int:
    """Bytes of the weights that one generated token reads.

    A weight that blocks share is counted once: it may still be in a cache the second time. Embedding tables are looked
    up, not read, unless the head shares them.
    """
    from torch import nn

    head = model.get_output_embeddings()
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} - {
        id(getattr(head, "weight", 0))
    }
    return sum(p.numel() * p.element_size() for p in model.parameters() if id(p) not in looked_up)


def read_seconds(size_bytes: int, device: str, threads: int, repeats: int) -> np.ndarray:
    """Time to read a buffer once, by the faster of two kernels that stream it.

    The kernels are a matrix-vector product, which is what a decoder does with its weights, and a dot product of the
    buffer's halves. Both read `size_bytes` rounded down to whole rows of at most 4 KiB, or to two floats.

    Args:
        size_bytes: of the buffer; at least 8.
        device: `cpu` or `cuda`.
        threads: of torch on the CPU, put back afterwards.
        repeats: readings by each kernel.

    Returns:
        float64 (repeats,), seconds: the readings of the kernel that has the fastest one.

    Raises:
        ValueError: the buffer is below 8 bytes, or there are no repeats.

    Source: Williams, Waterman and Patterson 2009 (roofline); McCalpin 1995 (STREAM) for timing real kernels.
    """
    import torch

    if size_bytes < 2 * FLOAT_BYTES or repeats < 1:
        raise ValueError(f"got {size_bytes} bytes and {repeats} repeats, expected at least {2 * FLOAT_BYTES} and 1")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            # Written, not zeros: pages that were never written are one page to the system, and read from a cache.
            buffer = torch.ones(size_bytes // FLOAT_BYTES, device=device)
            row, half = min(LONGEST_ROW, len(buffer)), len(buffer) // 2
            matrix, vector = buffer[: len(buffer) // row * row].view(-1, row), torch.ones(row, device=device)
            left, right = buffer[:half], buffer[half : 2 * half]
            kernels = [lambda: torch.mv(matrix, vector), lambda: torch.dot(left, right)]
            return min((_time(kernel, device, repeats) for kernel in kernels), key=np.min)
    finally:
        torch.set_num_threads(before)


def _time(kernel: Callable[[], object], device: str, repeats: int) -> np.ndarray:
    """Seconds of one call, float64 (repeats,)."""
    import torch

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    calls = 1 if device == "cpu" else CUDA_CALLS
    seconds = np.empty(repeats)
    for index in range(-WARMUP, repeats):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            kernel()
        wait()
        if index >= 0:
            seconds[index] = (time.perf_counter() - start) / calls
    return seconds


def bound(seconds: np.ndarray, generated_tokens: int) -> Value:
    """The figure `latency_ms_memory_bound`: the least time (ms) to read the weights once for each generated token.

    Args:
        seconds: float64 (repeats,), from `read_seconds`.
        generated_tokens: of one generation; the first one's pass over the prompt reads the weights once, too.
    """
    fastest_ms, median_ms = (float(1000 * generated_tokens * s) for s in (np.min(seconds), np.median(seconds)))
    method = "fastest to median reading of the faster of two kernels that read as many bytes"
    return Value(fastest_ms, "ms", fastest_ms, median_ms, len(seconds), method)

"""Random generators derived from the study's seed and a purpose, so that each purpose has its own stream."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np


def seeded_generator(seed: int, *purpose: object) -> np.random.Generator:
    """A generator for one purpose; the same seed and purpose give the same numbers on every machine.

    The purpose never names a variant: all variants of a replicate see the same data in the same order and the same
    bootstrap resamples, so that they can be compared pairwise.
    """
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    words = np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


@contextlib.contextmanager
def torch_seed(generator: np.random.Generator) -> Iterator[None]:
    """Seed torch's own generator for a block and put it back: libraries that initialise weights draw from it."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(int(generator.integers(2**63)))
        yield

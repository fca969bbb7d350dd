"""The compression methods, each a module with one entry in `REGISTRY`.

A method is a function `build(inputs, options) -> Built`. It gets the dense base as a state dict and returns a new one;
it reads and writes no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """What a method may build from.

    Args:
        state: the base's tensors, name -> float32 tensor.
        config: the base's configuration (config.json).
        permutations: int32 (layers, layers, neurons) from the alignment, for methods that need it.
        trainer: callable that trains a student against the base, for methods that train; see `methods.distill`.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    permutations: np.ndarray | None = None
    trainer: Callable | None = None


@dataclass(frozen=True)
class Built:
    """A built variant.

    Args:
        state: tensor name -> tensor.
        config: its configuration.
        frozen_zeros: names of tensors whose zeros must stay zero in recovery.
        notes: plain facts for the build's record.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    frozen_zeros: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One registry entry.

    Args:
        module: module under `ffnfold.methods` that holds `build`.
        needs: the inputs beside the base: `alignment`, `data`, `fetch`.
        title: what the report calls it.
    """

    module: str
    needs: frozenset[str]
    title: str

    def build(self, inputs: Inputs, options: Mapping[str, Any]) -> Built:
        """Build a variant from its options (its line in the study file)."""
        return import_module(f"ffnfold.methods.{self.module}").build(inputs, options)


REGISTRY: dict[str, Method] = {
    "baseline": Method("baseline", frozenset(), "the base itself"),
    "checkpoint": Method("checkpoint", frozenset({"fetch"}), "another checkpoint"),
    "distill": Method("distill", frozenset({"data"}), "distilled student"),
    "prune": Method("prune", frozenset(), "magnitude pruning"),
    "merge": Method("merge", frozenset({"alignment"}), "averaged FFNs, depth kept"),
    "compress": Method("compress", frozenset({"alignment"}), "runs of blocks replaced by one"),
}

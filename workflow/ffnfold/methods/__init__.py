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


#: What a build may need beside the base, and what the workflow then makes or reads:
#:   alignment          permutations and similarities by activations (align_layers)
#:   weight_alignment   the same by weights (align_weights)
#:   moments            second moments of the inputs of the blocks' matrices (collect_moments)
#:   validation         the validation split of the language-modelling task, scored by the build itself
#:   data               the training texts of recovery, for builds that train
#:   fetch              another checkpoint
NEEDS = frozenset({"alignment", "weight_alignment", "moments", "validation", "data", "fetch"})


@dataclass(frozen=True)
class Inputs:
    """What a method may build from.

    Args:
        state: the base's tensors, name -> float32 tensor.
        config: the base's configuration (config.json).
        permutations: int32 (layers, layers, neurons) from the alignment, for methods that need it.
        similarity: float64 (layers, layers) from the alignment, symmetric: how like the matched FFNs of two blocks are.
        moments: statistics of the base on calibration text; see `ffnfold.moments.Moments`.
        trainer: callable that trains a student against the base, for methods that train; see `methods.distill`.
        fitter: callable that trains groups' FFNs on their members' outputs; see `ffnfold.fitting.ffn_fitter`.
        validation_nats: callable (state, config) -> mean nats a token of that model on the validation split.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any]
    permutations: np.ndarray | None = None
    trainer: Callable | None = None
    similarity: np.ndarray | None = None
    moments: Any = None
    fitter: Callable | None = None
    validation_nats: Callable[[Mapping[str, Tensor], Mapping[str, Any]], float] | None = None


@dataclass(frozen=True)
class Built:
    """A built variant.

    Args:
        state: tensor name -> tensor.
        config: its configuration.
        frozen_zeros: names of tensors whose zeros must stay zero in recovery.
        trained: names of the parameters that recovery trains; None for all.
        notes: plain facts for the build's record.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    frozen_zeros: list[str] = field(default_factory=list)
    trained: list[str] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One registry entry.

    Args:
        module: module under `ffnfold.methods` that holds `build`.
        needs: function of a variant's options: which of NEEDS its build takes.
        title: what the report calls it.
        tied: whether its models are of the classes in `ffnfold.sharing`.
    """

    module: str
    needs: Callable[[Mapping[str, Any]], frozenset[str]]
    title: str
    tied: bool = False

    def build(self, inputs: Inputs, options: Mapping[str, Any]) -> Built:
        """Build a variant from its options (its line in the study file)."""
        return import_module(f"ffnfold.methods.{self.module}").build(inputs, options)


def _always(*needs: str) -> Callable[[Mapping[str, Any]], frozenset[str]]:
    return lambda options: frozenset(needs)


def _needs_of_averaging(options: Mapping[str, Any]) -> frozenset[str]:
    """What merge, share and compress need, as their options are."""
    matched = (
        options["average"] != "anchor"
        or options["groups"] == "similarity"
        or options["reference"] == "medoid"
        or options.get("rank", 0) > 0
    )
    needs = {
        "alignment": matched and options["align"] == "activations",
        "weight_alignment": matched and options["align"] == "weights",
        "moments": options["average"] == "regression",
        "validation": options["groups"] == "window",
        "data": options["fit"]["steps"] > 0,
    }
    return frozenset(name for name, needed in needs.items() if needed)


def needs_of(options: Mapping[str, Any]) -> frozenset[str]:
    """Which of NEEDS the build of a variant takes.

    Args:
        options: its line in the study, defaults written out.
    """
    return REGISTRY[options["method"]].needs(options)


REGISTRY: dict[str, Method] = {
    "baseline": Method("baseline", _always(), "the base itself"),
    "checkpoint": Method("checkpoint", _always("fetch"), "another checkpoint"),
    "distill": Method("distill", _always("data"), "distilled student"),
    "prune": Method(
        "prune", lambda options: frozenset({"moments"} if options["score"] == "wanda" else ()), "pruned weights"
    ),
    "merge": Method("merge", _needs_of_averaging, "averaged FFNs, depth kept"),
    "share": Method("share", _needs_of_averaging, "averaged FFNs, stored once", tied=True),
    "compress": Method("compress", _needs_of_averaging, "runs of blocks replaced by one"),
    "drop": Method(
        "drop", lambda options: frozenset({"moments"} if options["by"] == "influence" else ()), "blocks deleted"
    ),
    "bypass": Method("bypass", _always(), "FFNs deleted", tied=True),
}

"""Largest differences of fp32 logits between models that should compute the same, at GPT-2's full size, random weights.

    python benchmarks/logit_equality.py

Ends with status 1 where two differ by more than rounding: by anything where the same numbers are multiplied in the same
order, by 1e-4 of the largest logit where sums come in another order or matrices are added first.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from ffnfold.architecture import FAMILIES, ffn_names
from ffnfold.averaging import aligned_ffn
from ffnfold.checkpoints import load_config, load_model, load_state, save_checkpoint
from ffnfold.methods import REGISTRY, Inputs
from ffnfold.sharing import expand
from full_size import LAYERS, NEURONS, filled, make_base

GPT2 = FAMILIES["gpt2"]
IDS = torch.randint(0, 50257, (2, 64), generator=torch.Generator().manual_seed(1))
FAILED = []


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(folder)(IDS).logits


def show(title: str, first: torch.Tensor, second: torch.Tensor, exact: bool) -> None:
    """Print the largest difference, and note it where it is too large."""
    difference, largest = float((first - second).abs().max()), float(first.abs().max())
    ok = difference == 0 if exact else difference <= 1e-4 * largest
    print(f"{title:58} {difference:9.2e} of {largest:8.3g}  {'ok' if ok else 'TOO LARGE'}", flush=True)
    if not ok:
        FAILED.append(title)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ffnfold-equality-") as scratch:
        compare_all(Path(scratch))
    sys.exit(bool(FAILED))


def compare_all(folder: Path) -> None:
    make_base(folder)
    state, config = load_state(folder / "base"), load_config(folder / "base")
    generator = np.random.default_rng(0)
    orders = np.tile(np.arange(NEURONS, dtype=np.int32), (LAYERS, LAYERS, 1))
    for a in range(LAYERS):
        for b in range(a + 1, LAYERS):
            orders[a, b] = generator.permutation(NEURONS)
            orders[b, a, orders[a, b]] = np.arange(NEURONS)

    def written(name: str, state: dict, config: dict) -> torch.Tensor:
        save_checkpoint(folder / name, state, config, None)
        return logits(folder / name)

    def built(state: dict, permutations: np.ndarray = orders, **options: object) -> tuple[dict, dict]:
        made = REGISTRY[options["method"]].build(Inputs(state, config, permutations), filled(options))
        return made.state, made.config

    base = logits(folder / "base")
    permuted = dict(state)
    for layer in range(1, LAYERS):
        ffn = aligned_ffn(state, GPT2, layer, 0, orders)
        permuted.update({name: ffn[part] for part, name in ffn_names(GPT2, layer).items()})
    show("neurons of 11 FFNs permuted, and the original", base, written("permuted", permuted, config), exact=False)

    shared_state, shared_config = built(state, method="share", n=4)
    shared = written("shared", shared_state, shared_config)
    show("shared_4 and merged_4", shared, written("merged", *built(state, method="merge", n=4)), exact=True)
    show("shared_4 expanded, and shared_4", shared, written("expanded", *expand(shared_state, shared_config)), True)
    tied = load_model(folder / "shared")
    tied.save_pretrained(folder / "again")
    with torch.no_grad():
        show("shared_4 in memory, and saved and reloaded", tied(IDS).logits, logits(folder / "again"), exact=True)
    delta_state, delta_config = built(state, method="share", n=4, rank=32)
    delta, opened = written("delta", delta_state, delta_config), written("opened", *expand(delta_state, delta_config))
    show("shared_4 of rank 32 expanded, and itself", delta, opened, exact=False)
    bypassed_state, bypassed_config = built(state, method="bypass", n=4)
    bypassed = written("bypassed", bypassed_state, bypassed_config)
    show("bypassed_4 expanded, and itself", bypassed, written("zeros", *expand(bypassed_state, bypassed_config)), True)

    equal = dict(state)  # every FFN of a run is its first one's
    for layer in range(LAYERS):
        for part, name in ffn_names(GPT2, layer).items():
            equal[name] = state[ffn_names(GPT2, 4 * (layer // 4))[part]]
    identity = np.tile(np.arange(NEURONS, dtype=np.int32), (LAYERS, LAYERS, 1))
    whole = written("equal", equal, config)
    merged = written("self", *built(equal, identity, method="merge", n=4))
    show("equal FFNs merged, and the same before", whole, merged, exact=True)
    dropped = written("dropped", *built(equal, identity, method="drop", n=4))
    compressed = written("compressed", *built(equal, identity, method="compress", n=4))
    show("equal FFNs: dropped_4 and compressed_4", dropped, compressed, exact=True)


if __name__ == "__main__":
    main()

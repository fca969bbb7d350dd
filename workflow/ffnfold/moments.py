"""Statistics of the base on calibration text: second moments of its matrices' inputs, and its blocks' influence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ffnfold.architecture import Family, family_of, layer_count
from ffnfold.calibration_text import calibration_batches
from ffnfold.errors import InputError
from ffnfold.files import atomic_path


class _Sums:
    """Sums over the counted positions, fed by forward hooks.

    Products of features are summed in float32 where the activations lie, all else in float64 on the CPU. The
    positions of a batch are set in `counted` before the model runs.
    """

    def __init__(self, model: nn.Module, family: Family, layers: int) -> None:
        self.positions = 0
        self.counted = torch.empty(0, dtype=torch.bool)
        self.products: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}
        self.cosine = torch.zeros(layers, dtype=torch.float64)
        self.handles = []
        for layer in range(layers):
            prefix = family.blocks.format(layer=layer)
            keys = {family.ffn_in: f"ffn_in.{layer}", family.ffn_out: f"ffn_out.{layer}"}
            for module in {name.removesuffix(".weight") for name in family.block_matrices} | set(keys):
                hook = self._input_hook(f"input_square.{prefix}{module}.weight", keys.get(module))
                self.handles.append(model.get_submodule(prefix + module).register_forward_hook(hook))
            block = model.get_submodule(prefix.rstrip("."))
            self.handles.append(block.register_forward_hook(self._block_hook(layer), with_kwargs=True))

    def _input_hook(self, square: str, product: str | None) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            x = inputs[0].detach()[self.counted].float()  # (positions, in features)
            if product is None:
                total = x.square().sum(dim=0).cpu().double()
                self.squares[square] = self.squares.get(square, 0) + total
                return
            x = functional.pad(x, (0, 1), value=1.0)
            if product not in self.products:
                self.products[product] = x.new_zeros(x.shape[1], x.shape[1])
            self.products[product].addmm_(x.T, x)

        return hook

    def _block_hook(self, layer: int) -> Callable:
        def hook(module: nn.Module, inputs: tuple, named: dict, output: Any) -> None:
            before = inputs[0] if inputs else named["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            cosine = functional.cosine_similarity(
                before.detach()[self.counted].float(), after.detach()[self.counted].float(), dim=-1
            )
            self.cosine[layer] += float(cosine.cpu().double().sum())

        return hook

    def means(self, family: Family, layers: int) -> dict[str, Tensor]:
        """The sums as means over positions, float32 on the CPU; the sums are used up."""
        tensors = {key: self.products.pop(key).div_(self.positions).cpu() for key in sorted(self.products)}
        for layer in range(layers):
            prefix = family.blocks.format(layer=layer)
            for key, module in (("ffn_in", family.ffn_in), ("ffn_out", family.ffn_out)):
                diagonal = tensors[f"{key}.{layer}"].diagonal()[:-1].clone()
                tensors[f"input_square.{prefix}{module}.weight"] = diagonal
        tensors.update({key: (total / self.positions).float() for key, total in self.squares.items()})
        tensors["influence"] = (1 - self.cosine / self.positions).float()
        return tensors


def collect_moments(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[str],
    join: str,
    settings: Mapping[str, Any],
    generator: np.random.Generator,
    device: str,
    threads: int,
) -> dict[str, Tensor]:
    """Second moments of the inputs of the blocks' matrices, and each block's influence, on a text.

    Args:
        model: a causal language model in evaluation mode.
        rows, join, settings, generator, device, threads: as for `calibration_batches`; with what the alignment was
            given the same positions are read.

    Returns:
        float32 tensors, means over the positions read:
        `ffn_in.{layer}` (hidden size + 1, hidden size + 1): second moment of (x, 1), x the input of the first FFN
        matrix;
        `ffn_out.{layer}` (neurons + 1, neurons + 1): the same of the second one's input, the activations;
        `input_square.{name}` (in features,): mean square of each input of a block matrix, `name` its full tensor name;
        `influence` (layers,): 1 - cosine of a block's input and output.

    Raises:
        InputError: the windows are longer than the model's positions, there is too little text, or an activation is
            not finite.

    Source: Jin et al. 2022 (arXiv 2212.09849), section 3, for the inner products of inputs; Sun et al. 2023
    (arXiv 2306.11695), section 3, for the norm of each input; Men et al. 2024 (ShortGPT, arXiv 2403.03853), section 3,
    for block influence.
    """
    config = model.config.to_dict()
    family, layers = family_of(config), layer_count(config)
    batches = calibration_batches(model, tokenizer, rows, join, settings, generator, device, threads)
    sums = _Sums(model, family, layers)
    try:
        with torch.no_grad():
            for batch in batches:
                sums.counted = batch["counted"].bool()
                sums.positions += int(sums.counted.sum())
                # The blocks alone: the output head's logits are not needed.
                model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    finally:
        for handle in sums.handles:
            handle.remove()
    moments = sums.means(family, layers)
    broken = sorted(name for name, tensor in moments.items() if not tensor.isfinite().all())
    if broken:
        raise InputError(
            "the base's activations are not finite on the calibration text",
            where=broken[0],
            got="NaN or infinity",
            remedy="check the base; it cannot be measured either",
        )
    return moments


def save_moments(moments: Mapping[str, Tensor], path: str | Path) -> None:
    """Write what `collect_moments` returns as safetensors."""
    with atomic_path(path) as temporary:
        save_file(dict(moments), temporary)


class Moments:
    """The statistics of `collect_moments`, each tensor read when it is asked for.

    Args:
        source: the file that `save_moments` wrote, or its tensors by name.

    Every method raises InputError where the file is not what `save_moments` writes.
    """

    def __init__(self, source: str | Path | Mapping[str, Tensor]) -> None:
        self._source = source

    def ffn_in(self, layer: int) -> Tensor:
        """Second moment of (x, 1), x the input of a block's first FFN matrix: float32 (hidden size + 1, same)."""
        return self._get(f"ffn_in.{layer}")

    def ffn_out(self, layer: int) -> Tensor:
        """Second moment of (h, 1), h the activations of a block's FFN: float32 (neurons + 1, same)."""
        return self._get(f"ffn_out.{layer}")

    def input_square(self, name: str) -> Tensor:
        """Mean square of each input of a block matrix, by its full tensor name: float32 (in features,)."""
        return self._get(f"input_square.{name}")

    def influence(self) -> Tensor:
        """1 - mean cosine of a block's input and output: float32 (layers,)."""
        return self._get("influence")

    def _get(self, key: str) -> Tensor:
        if isinstance(self._source, Mapping):
            return self._source[key]
        try:
            with safe_open(self._source, framework="pt") as file:
                return file.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise InputError(
                "the moments cannot be read",
                where=f"{self._source}: {key}",
                got=f"{type(error).__name__}: {error}",
                remedy="delete the file and run the workflow again",
            ) from error

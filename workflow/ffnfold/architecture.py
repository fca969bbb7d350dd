"""Where a model family keeps its blocks, FFNs, norms and embeddings, by tensor name.

All surgery works on state dicts, so one table of names is what a new family needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ffnfold.errors import InputError


@dataclass(frozen=True)
class Family:
    """Tensor names of one model family.

    `blocks` is the prefix of a block with `{layer}` in it; FFN names are relative to it. `hidden_axis_in` and
    `hidden_axis_out` say along which axis of the two FFN matrices the FFN's neurons lie: GPT-2's Conv1D keeps
    weights as (in, out), so they are 1 for `ffn_in` (hidden size x neurons) and 0 for `ffn_out` (neurons x hidden
    size).
    """

    model_type: str
    blocks: str
    ffn_in: str
    ffn_out: str
    hidden_axis_in: int
    hidden_axis_out: int
    block_matrices: tuple[str, ...]
    embedding: str
    layers_key: str
    hidden_size_key: str


FAMILIES: dict[str, Family] = {
    # Source: Radford et al. 2019 (GPT-2); names as transformers' GPT2LMHeadModel stores them.
    "gpt2": Family(
        model_type="gpt2",
        blocks="transformer.h.{layer}.",
        ffn_in="mlp.c_fc",
        ffn_out="mlp.c_proj",
        hidden_axis_in=1,
        hidden_axis_out=0,
        block_matrices=("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"),
        embedding="transformer.wte.weight",
        layers_key="n_layer",
        hidden_size_key="n_embd",
    )
}


def family_of(config: Mapping) -> Family:
    """The family of a model configuration.

    Raises:
        InputError: the model type is not in the table.
    """
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(
            "this model family is not supported",
            where="config.json: model_type",
            got=repr(model_type),
            expected=" or ".join(sorted(FAMILIES)),
            remedy="name a GPT-2 checkpoint, or add the family to ffnfold.architecture.FAMILIES",
        )
    return FAMILIES[model_type]


def layer_count(config: Mapping) -> int:
    """Number of blocks of a model configuration."""
    return int(config[family_of(config).layers_key])


def ffn_names(family: Family, layer: int) -> dict[str, str]:
    """Names of the four FFN tensors of a block: in_weight, in_bias, out_weight, out_bias."""
    prefix = family.blocks.format(layer=layer)
    return {
        "in_weight": f"{prefix}{family.ffn_in}.weight",
        "in_bias": f"{prefix}{family.ffn_in}.bias",
        "out_weight": f"{prefix}{family.ffn_out}.weight",
        "out_bias": f"{prefix}{family.ffn_out}.bias",
    }


def consecutive_runs(layers: int, n: int) -> list[list[int]]:
    """Cut `layers` blocks into consecutive runs of `n`; the last may be shorter.

    Source: the published study's grouping. `consecutive_runs(12, 8)` is [0..7], [8..11].

    Raises:
        InputError: n is below 1 or above the number of blocks.
    """
    if not 1 <= n <= layers:
        raise InputError("n is out of bounds", where="n", got=n, expected=f"1 to {layers}, the number of blocks")
    return [list(range(start, min(start + n, layers))) for start in range(0, layers, n)]


def keep_blocks(state: Mapping, config: Mapping, kept: list[int]) -> tuple[dict, dict]:
    """A model of the blocks in `kept`, renumbered in that order; all other tensors as they are.

    Args:
        state: tensor name -> tensor, float32.
        config: the model configuration; not changed.
        kept: block indices of the model.

    Returns:
        The new state dict (tensors shared with `state`) and the new configuration.

    Raises:
        InputError: a block index is outside the model.
    """
    family, layers = family_of(config), layer_count(config)
    outside = [layer for layer in kept if not 0 <= layer < layers]
    if outside:
        raise InputError(
            "a block index is outside the model", where="layers", got=outside, expected=f"0 to {layers - 1}"
        )
    pattern = re.compile(re.escape(family.blocks).replace(r"\{layer\}", r"(\d+)") + "(.*)")
    position = {layer: index for index, layer in enumerate(kept)}
    new_state = {}
    for name, tensor in state.items():
        match = pattern.fullmatch(name)
        if match is None:
            new_state[name] = tensor
        elif int(match[1]) in position:
            new_state[family.blocks.format(layer=position[int(match[1])]) + match[2]] = tensor
    return new_state, {**config, family.layers_key: len(kept)}


def flops_per_token(state: Mapping, config: Mapping, context_length: int) -> int:
    """Floating-point operations of one token's forward pass at a full context.

    Two for each weight of a matrix product (block matrices and the output head), and 4 x hidden size x context
    for each block's attention scores and mixture. Norms, activations and biases are left out.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1, with the output head counted.
    """
    family, layers = family_of(config), layer_count(config)
    matrices = [f"{family.blocks.format(layer=i)}{name}" for i in range(layers) for name in family.block_matrices]
    weights = sum(state[name].numel() for name in matrices) + state[family.embedding].numel()
    return 2 * weights + 4 * layers * int(config[family.hidden_size_key]) * context_length


def require_positions(config: Mapping, length: int, where: str) -> None:
    """Check that a sequence of `length` tokens fits the model.

    Raises:
        InputError: it is longer than the model's positions; names the setting `where`.
    """
    positions = config.get("n_positions")
    if positions is not None and length > positions:
        raise InputError(
            "a length is more than the base's positions",
            where=where,
            got=f"{length} tokens",
            expected=f"at most {positions}",
            remedy="shorten it, or choose a base with more positions",
        )

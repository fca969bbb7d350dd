"""Where a model family keeps its blocks, FFNs, norms and embeddings, by tensor name.

All surgery works on state dicts, so one table of names is what a new family needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ffnfold.errors import InputError

SHARED_SUFFIX = "_shared_ffn"  # a model type with it is that of tied FFNs, with the tensor names of the stock family


@dataclass(frozen=True)
class Family:
    """Tensor names of one model family.

    `blocks` is the prefix of a block with `{layer}` in it; FFN names are relative to it. `hidden_axis_in` and
    `hidden_axis_out` say along which axis of the two FFN matrices the FFN's neurons lie: GPT-2's Conv1D keeps
    weights as (in, out), so they are 1 for `ffn_in` (hidden size x neurons) and 0 for `ffn_out` (neurons x hidden
    size); nn.Linear keeps them as (out, in).

    `head` is the output head's matrix; a state has it only where it is not tied to `embedding`. `stored_head` is its
    name in the files of the stock family, where that is another. `unused_in_classifier` are tensors of a language
    model's file that the classification model has no place for.
    """

    model_type: str
    blocks: str
    ffn_in: str
    ffn_out: str
    hidden_axis_in: int
    hidden_axis_out: int
    block_matrices: tuple[str, ...]
    embedding: str
    head: str
    stored_head: str | None
    unused_in_classifier: tuple[str, ...]
    layers_key: str
    hidden_size_key: str
    positions_key: str


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
        head="lm_head.weight",
        stored_head=None,
        unused_in_classifier=("lm_head.weight",),
        layers_key="n_layer",
        hidden_size_key="n_embd",
        positions_key="n_positions",
    ),
    # Source: Biderman et al. 2023 (Pythia, arXiv 2304.01373); Black et al. 2022 (GPT-NeoX-20B, arXiv 2204.06745); names
    # as transformers 5's GPTNeoXForCausalLM has them. It reads and writes its head as `embed_out`, its name until then.
    "gpt_neox": Family(
        model_type="gpt_neox",
        blocks="gpt_neox.layers.{layer}.",
        ffn_in="mlp.dense_h_to_4h",
        ffn_out="mlp.dense_4h_to_h",
        hidden_axis_in=0,
        hidden_axis_out=1,
        block_matrices=(
            "attention.query_key_value.weight",
            "attention.dense.weight",
            "mlp.dense_h_to_4h.weight",
            "mlp.dense_4h_to_h.weight",
        ),
        embedding="gpt_neox.embed_in.weight",
        head="lm_head.weight",
        stored_head="embed_out.weight",
        unused_in_classifier=("lm_head.weight", "embed_out.weight"),
        layers_key="num_hidden_layers",
        hidden_size_key="hidden_size",
        positions_key="max_position_embeddings",
    ),
}


def family_of(config: Mapping) -> Family:
    """The family of a model configuration; a model with tied FFNs is of the family that it was made from.

    Raises:
        InputError: the model type is not in the table.
    """
    model_type = config.get("model_type")
    stock = model_type.removesuffix(SHARED_SUFFIX) if isinstance(model_type, str) else None
    if stock not in FAMILIES:
        raise InputError(
            "this model family is not supported",
            where="config.json: model_type",
            got=repr(model_type),
            expected=" or ".join(sorted(FAMILIES)),
            remedy="name a GPT-2 or GPT-NeoX (Pythia) checkpoint, or add the family to ffnfold.architecture.FAMILIES",
        )
    return FAMILIES[stock]


def layer_count(config: Mapping) -> int:
    """Number of blocks of a model configuration."""
    return int(config[family_of(config).layers_key])


def positions_of(config: Mapping) -> int | None:
    """The longest sequence (tokens) of a model configuration; None where it does not say."""
    return config.get(family_of(config).positions_key)


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

    Two for each weight of a matrix product (block matrices, low-rank ones, and the output head), and 4 x hidden size x
    context for each block's attention scores and mixture. Norms, activations and biases are left out.

    Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1, with the output head counted.
    """
    family, layers = family_of(config), layer_count(config)
    ffn = (f"{family.ffn_in}.weight", f"{family.ffn_out}.weight")
    # An FFN that several blocks share is stored once and run in each of them.
    matrices = [
        f"{family.blocks.format(layer=holder if name in ffn else layer)}{name}"
        for layer, holder in enumerate(ffn_holders(config))
        for name in family.block_matrices
        if holder is not None or name not in ffn
    ]
    matrices += [name for name in state if name.rpartition(".")[2].startswith("delta_")]
    weights = sum(state[name].numel() for name in matrices) + state.get(family.head, state[family.embedding]).numel()
    return 2 * weights + 4 * layers * int(config[family.hidden_size_key]) * context_length


def require_positions(config: Mapping, length: int, where: str) -> None:
    """Check that a sequence of `length` tokens fits the model.

    Raises:
        InputError: it is longer than the model's positions; names the setting `where`.
    """
    positions = positions_of(config)
    if positions is not None and length > positions:
        raise InputError(
            "a length is more than the base's positions",
            where=where,
            got=f"{length} tokens",
            expected=f"at most {positions}",
            remedy="shorten it, or choose a base with more positions",
        )


def ffn_holders(config: Mapping) -> list[int | None]:
    """For each block, the block under whose name its FFN is stored; None for a block without an FFN.

    Source: the configuration of a tied model (see `ffnfold.sharing`); in a stock model each block holds its own.
    """
    holders: list[int | None] = list(range(layer_count(config)))
    for group in config.get("ffn_groups", ()):
        for layer in group:
            holders[layer] = group[0]
    for layer in config.get("ffn_bypassed", ()):
        holders[layer] = None
    return holders

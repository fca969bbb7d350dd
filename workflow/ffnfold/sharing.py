"""FFNs stored once: model classes whose blocks are tied to one FFN, and their expansion to a stock model.

The configuration says which: `ffn_groups`, lists of blocks with one FFN (the first of each holds its tensors, under the
stock names); `ffn_rank`, the rank of what each block of a group adds to it; `ffn_bypassed`, blocks that have no FFN.
Importing this module registers the classes with transformers' Auto classes, so `from_pretrained` gives tied models; no
code is kept in a checkpoint. Loaders that know only stock models take what `expand` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ffnfold.architecture import SHARED_SUFFIX, Family, family_of, ffn_holders, ffn_names

KEYS = ("ffn_groups", "ffn_rank", "ffn_bypassed")
DELTAS = ("delta_in_down", "delta_in_up", "delta_out_down", "delta_out_up")


class TiedFFN(nn.Module):
    """One block's FFN: matrices that a group shares, plus this block's own low-rank product on each.

        h = act(x W_in + b_in + (x A_in) B_in),   y = h W_out + b_out + (h A_out) B_out

    Args:
        stock: the FFN module whose matrices are shared.
        family: names of its two matrices.
        hidden_size, neurons: features of x and of h.
        rank: columns of the A and rows of the B.
        holder: whether the shared matrices are stored with this block. Elsewhere they are plain attributes, which
            neither `parameters` nor `state_dict` see.

    Source: Bae et al. 2024, Relaxed Recursive Transformers (arXiv 2410.20672), who tie attention too.
    """

    def __init__(self, stock: nn.Module, family: Family, hidden_size: int, neurons: int, rank: int, holder: bool):
        super().__init__()
        self._in, self._out = (name.rpartition(".")[2] for name in (family.ffn_in, family.ffn_out))
        for name, module in stock.named_children():
            if holder:
                setattr(self, name, module)
            else:
                self.__dict__[name] = module
        shapes = ((hidden_size, rank), (rank, neurons), (neurons, rank), (rank, hidden_size))
        for name, shape in zip(DELTAS, shapes, strict=True):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(…, hidden size) to (…, hidden size)."""
        inner = getattr(self, self._in)(hidden_states) + (hidden_states @ self.delta_in_down) @ self.delta_in_up
        inner = self.act(inner)
        outer = getattr(self, self._out)(inner) + (inner @ self.delta_out_down) @ self.delta_out_up
        return self.dropout(outer) if hasattr(self, "dropout") else outer


class NoFFN(nn.Module):
    """In the place of a deleted FFN: adds nothing to the residual stream."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Zeros of the input's shape and type."""
        return torch.zeros_like(hidden_states)


def tie_ffns(model: nn.Module) -> None:
    """Tie a freshly made model's FFNs as its configuration says, before weights are loaded.

    A tied block's FFN is taken out of the modules and set as a plain attribute that refers to the holder's module: it
    is stored, moved, copied and trained once, whatever becomes of the model. (Declaring the tie to transformers by
    `_tied_weights_keys` would not do: it is undone by `tie_word_embeddings: false`.)
    """
    config = model.config
    family = family_of({"model_type": config.model_type})
    where, _, name = family.ffn_in.rpartition(".")
    blocks = [
        model.get_submodule(family.blocks.format(layer=layer).rstrip("."))
        for layer in range(getattr(config, family.layers_key))
    ]
    for layer in config.ffn_bypassed:
        setattr(blocks[layer], where, NoFFN())
    for group in config.ffn_groups:
        stock = getattr(blocks[group[0]], where)
        neurons = getattr(stock, name).bias.shape[0]
        for layer in group if len(group) > 1 else ():
            if config.ffn_rank:
                tied = TiedFFN(
                    stock, family, getattr(config, family.hidden_size_key), neurons, config.ffn_rank, layer == group[0]
                )
                setattr(blocks[layer], where, tied)
            elif layer != group[0]:
                del blocks[layer]._modules[where]
                blocks[layer].__dict__[where] = stock


def _tied_class(stock: type, config_class: type) -> type:
    """A subclass of a stock model class whose FFNs are tied."""

    def __init__(self: Any, config: Any, *arguments: Any, **options: Any) -> None:
        stock.__init__(self, config, *arguments, **options)
        tie_ffns(self)

    name = f"SharedFFN{stock.__name__}"
    return type(name, (stock,), {"__init__": __init__, "config_class": config_class, "__module__": __name__})


def _register(model_type: str, config_name: str, lm_name: str, classifier_name: str) -> None:
    """Tied classes of one family, known to the Auto classes."""
    stock = getattr(transformers, config_name)
    fields = {"model_type": model_type + SHARED_SUFFIX, "ffn_groups": (), "ffn_rank": 0, "ffn_bypassed": ()}
    config_class = type(f"SharedFFN{config_name}", (stock,), {**fields, "__module__": __name__})
    transformers.AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    autos = (transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification)
    for auto, name in zip(autos, (lm_name, classifier_name), strict=True):
        model_class = _tied_class(getattr(transformers, name), config_class)
        globals()[model_class.__name__] = model_class
        auto.register(config_class, model_class, exist_ok=True)
    globals()[config_class.__name__] = config_class


_register("gpt2", "GPT2Config", "GPT2LMHeadModel", "GPT2ForSequenceClassification")
_register("gpt_neox", "GPTNeoXConfig", "GPTNeoXForCausalLM", "GPTNeoXForSequenceClassification")


# ------------------------------------------------------------------------------------------------- state dicts


def share_ffns(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    groups: Sequence[Sequence[int]],
    ffns: Sequence[Mapping[str, Tensor]],
    deltas: Mapping[int, Mapping[str, Tensor]] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A tied model's tensors and configuration.

    Args:
        state, config: of a stock model.
        groups: lists of blocks, ascending; every block in one.
        ffns: for each group its four FFN tensors, as `ffn_names` names them.
        deltas: block -> its low-rank matrices by the names in DELTAS; None for none.

    Returns:
        Each stored tensor once, and the configuration of the tied class.
    """
    family = family_of(config)
    shared = dict(state)
    for group, ffn in zip(groups, ffns, strict=True):
        for layer in group:
            for part, name in ffn_names(family, layer).items():
                if layer == group[0]:
                    shared[name] = ffn[part]
                else:
                    del shared[name]
    rank = 0
    for layer, matrices in (deltas or {}).items():
        rank = matrices["delta_in_down"].shape[1]
        shared.update({delta_name(family, layer, name): matrices[name] for name in DELTAS})
    return shared, _tied_config(config, groups=[list(map(int, group)) for group in groups], rank=rank)


def bypass_ffns(
    state: Mapping[str, Tensor], config: Mapping[str, Any], layers: Sequence[int]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The model without the FFNs of some blocks, their norms kept."""
    family = family_of(config)
    gone = {name for layer in layers for name in ffn_names(family, layer).values()}
    kept = {name: tensor for name, tensor in state.items() if name not in gone}
    return kept, _tied_config(config, bypassed=list(map(int, layers)))


def delta_name(family: Family, layer: int, name: str) -> str:
    """Name of a block's low-rank matrix."""
    return f"{family.blocks.format(layer=layer)}{family.ffn_in.rpartition('.')[0]}.{name}"


def _tied_config(
    config: Mapping[str, Any], groups: Sequence = (), rank: int = 0, bypassed: Sequence[int] = ()
) -> dict[str, Any]:
    model_type = family_of(config).model_type + SHARED_SUFFIX
    names = {"ffn_groups": list(groups), "ffn_rank": rank, "ffn_bypassed": list(bypassed)}
    return {**config, **names, "model_type": model_type, "architectures": [class_name(model_type)]}


def expand(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The stock model that computes what a tied one computes: every block with its own copy of its FFN.

    Tied FFNs are copied, so logits are the same to the bit; low-rank products are added to the matrices, so logits are
    the same up to rounding; a deleted FFN becomes one of zeros.

    Args:
        state, config: of a tied model; a stock model's come back unchanged.

    Returns:
        Tensors (none shared between names) and configuration of the stock class.
    """
    family = family_of(config)
    if config["model_type"] == family.model_type:
        return dict(state), dict(config)
    expanded = {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] not in DELTAS}
    shapes = {part: state[name] for part, name in ffn_names(family, _some_holder(config)).items()}
    for layer, holder in enumerate(ffn_holders(config)):
        for part, name in ffn_names(family, layer).items():
            if holder is None:
                expanded[name] = torch.zeros_like(shapes[part])
            else:
                expanded[name] = state[ffn_names(family, holder)[part]].clone()
        for side in ("in", "out"):
            down = state.get(delta_name(family, layer, f"delta_{side}_down"))
            if down is not None:
                product = down.double() @ state[delta_name(family, layer, f"delta_{side}_up")].double()
                name = ffn_names(family, layer)[f"{side}_weight"]
                product = product if family.hidden_axis_in == 1 else product.T  # a Linear keeps (out, in)
                expanded[name] = (expanded[name].double() + product).to(down.dtype)
    kept = {key: value for key, value in config.items() if key not in KEYS}
    return expanded, {**kept, "model_type": family.model_type, "architectures": [class_name(family.model_type)]}


def _some_holder(config: Mapping[str, Any]) -> int:
    return next(holder for holder in ffn_holders(config) if holder is not None)


def class_name(model_type: str) -> str:
    """Name of the causal language model class of a model type, stock or tied."""
    mapping = transformers.AutoModelForCausalLM._model_mapping
    return mapping[type(transformers.AutoConfig.for_model(model_type))].__name__

"""The published parameter counts, and those of our own methods, from a full-size GPT-2 with random weights."""

import numpy as np
import pytest
import torch
from ffnfold.architecture import keep_blocks
from ffnfold.methods import REGISTRY, Inputs
from ffnfold.metrics.parameters import count_parameters
from ffnfold.settings import fill_defaults, load_schema

GPT2, HALF, COUNTS = 124_439_808, 81_912_576, {}
COUNTS |= {"gpt2": GPT2, "distilgpt2": HALF, "pruned_104M": GPT2}
COUNTS |= {f"merged_{n}": GPT2 for n in (2, 4, 6, 8, 10)}
COUNTS |= {"compressed_2": HALF, "compressed_4": 60_648_960}
COUNTS |= {f"compressed_{n}": 53_561_088 for n in (6, 8, 10)}
COUNTS |= {"shared_2": 96_105_216, "shared_4": 81_937_920}
COUNTS |= {f"shared_{n}": 77_215_488 for n in (6, 8, 10)}
COUNTS |= {"bypassed_4": 81_937_920, "dropped_4": 60_648_960}
NONZERO = {**COUNTS, "pruned_104M": 104_694_536}
LAYERS = {
    "distilgpt2": 6,
    "compressed_2": 6,
    "compressed_4": 3,
    "compressed_6": 2,
    "compressed_8": 2,
    "compressed_10": 2,
}


@pytest.fixture(scope="module")
def base():
    """The names and shapes of GPT-2, filled with normal numbers, all positive so that no average of two is 0."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config()
    with torch.device("meta"):
        blank = GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in blank.state_dict().items():
        if name != "lm_head.weight":
            values = torch.randn(tensor.shape, generator=generator).abs_()
            state[name] = values.masked_fill_(values == 0, 1.0)
    # No alignment run: every neuron is matched with the neuron of its own number.
    identity = np.tile(np.arange(4 * 768, dtype=np.int32), (12, 12, 1))
    return Inputs(state, config.to_dict(), identity)


def build(base, variant):
    """State and configuration of a published variant."""
    method, _, n = variant.partition("_")
    if variant == "distilgpt2":  # counted before its training, which changes no shape
        return keep_blocks(base.state, base.config, [0, 2, 4, 7, 9, 11])
    methods = {"gpt2": "baseline", "pruned": "prune", "merged": "merge", "compressed": "compress", "shared": "share"}
    methods |= {"bypassed": "bypass", "dropped": "drop"}
    options = {"method": methods[method]}
    options |= {"scope": "embedding", "keep": 104_694_536} if method == "pruned" else {"n": int(n)} if n else {}
    schema = load_schema("study")
    options = fill_defaults(options, schema["$defs"][options["method"]], schema)
    built = REGISTRY[options["method"]].build(base, options)
    return built.state, built.config


def test_there_are_thirteen_published_variants_and_seven_of_ours():
    assert len(COUNTS) == 13 + 7


@pytest.mark.parametrize("variant", COUNTS)
def test_counts_are_the_published_ones(base, variant):
    import ffnfold.sharing  # noqa: F401  registers the tied classes
    from transformers import AutoConfig, AutoModelForCausalLM

    state, config = build(base, variant)
    assert config["n_layer"] == LAYERS.get(variant, 3 if variant == "dropped_4" else 12)
    assert count_parameters(state) == (COUNTS[variant], NONZERO[variant])

    # The same by transformers itself: every tensor has its place, and the tied head is counted once.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    missing = model.load_state_dict(state, strict=False, assign=True)
    assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys
    model.tie_weights()
    assert model.lm_head.weight is model.transformer.wte.weight
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[variant]
    if variant in ("gpt2", "compressed_4", "pruned_104M"):
        assert sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters()) == NONZERO[variant]


def test_the_published_pruning_touches_the_embedding_alone(base):
    state, _ = build(base, "pruned_104M")
    changed = [name for name in state if state[name] is not base.state[name]]
    assert changed == ["transformer.wte.weight"]
    assert int((state["transformer.wte.weight"] == 0).sum()) == 19_745_272  # 51.157% of 38,597,376
    kept = state["transformer.wte.weight"].abs()
    removed = base.state["transformer.wte.weight"][kept == 0].abs()
    assert removed.max() <= kept[kept > 0].min()

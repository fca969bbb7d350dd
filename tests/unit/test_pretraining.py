"""Pretraining from nothing: reproducible, and with the initial weights that the study asks for."""

import math

import pytest
import torch
from ffnfold.pretraining import pretrain, rescale_initial_weights
from transformers import AutoConfig, AutoModelForCausalLM

SHAPE = {
    "layers": 3,
    "initializer_range": 0.1,
    "position_initializer_range": 0.01,
    "residual_initializer_range": 0.05,
}
CONFIG = {
    "model_type": "gpt2",
    "n_layer": 3,
    "n_embd": 64,
    "n_head": 2,
    "n_positions": 128,
    "initializer_range": 0.1,
}


def test_initial_weights_have_the_deviations_asked_for():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIG, vocab_size=300))
    rescale_initial_weights(model, SHAPE)
    weights = dict(model.named_parameters())
    assert weights["transformer.wte.weight"].std().item() == pytest.approx(0.1, rel=0.05)
    assert weights["transformer.wpe.weight"].std().item() == pytest.approx(0.01, rel=0.05)
    for layer in range(3):
        for name in ("attn.c_proj", "mlp.c_proj"):
            assert weights[f"transformer.h.{layer}.{name}.weight"].std().item() == pytest.approx(0.05, rel=0.05)


def test_without_a_range_the_residual_matrices_keep_gpt2s():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIG, vocab_size=300))
    rescale_initial_weights(model, {**SHAPE, "residual_initializer_range": None})
    deviation = dict(model.named_parameters())["transformer.h.0.mlp.c_proj.weight"].std().item()
    assert deviation == pytest.approx(0.1 / math.sqrt(6), rel=0.05)


def test_the_same_seed_gives_the_same_model(tmp_path, budget):
    data = {"language_modeling": ({"text": ["the mill in the town holds wool ."] * 40}, "\n")}

    def run(folder, seed):
        (tmp_path / folder).mkdir()
        return pretrain(
            data,
            config={**CONFIG, "n_embd": 16},
            architecture=SHAPE,
            tokenizer={"source": None, "revision": None, "vocabulary_size": 300},
            budget=budget,
            prompt="\nTL;DR:",
            seed=seed,
            device="cpu",
            threads=1,
            directory=tmp_path / folder,
        ).state_dict()

    first, again, other = run("a", 1), run("b", 1), run("c", 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)

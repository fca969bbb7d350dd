import numpy as np
import pytest
import torch
from ffnfold.architecture import FAMILIES, ffn_names
from ffnfold.calibration import correlate_layers
from ffnfold.calibration_text import calibration_batches
from ffnfold.errors import InputError
from ffnfold.moments import Moments, collect_moments, save_moments
from ffnfold.text import token_windows

GPT2 = FAMILIES["gpt2"]
SETTINGS = {"tokens": 300, "sequence_length": 32, "count_padding": False, "max_items": None}


@pytest.fixture(scope="module")
def model(make_gpt2):
    return make_gpt2()


def collect(model, tokenizer, texts, **changes):
    generator = np.random.default_rng(0)
    return collect_moments(model, tokenizer, texts, "\n", {**SETTINGS, **changes}, generator, "cpu", 1)


def direct(model, tokenizer, texts):
    """Hidden states (blocks' inputs and the last one's output) at the counted positions, straight from the model."""
    windows = token_windows(tokenizer, texts, "\n", 32, 10, np.random.default_rng(0))
    with torch.no_grad():
        # The last of `hidden_states` has gone through the final norm: read the last block's output where it leaves.
        last = []
        handle = model.transformer.h[-1].register_forward_hook(
            lambda module, inputs, output: last.append(output[0] if isinstance(output, tuple) else output)
        )
        hidden = model(torch.from_numpy(windows), output_hidden_states=True).hidden_states
        handle.remove()
    return [h.reshape(-1, 16)[:300] for h in (*hidden[:-1], last[0])], windows


def test_moments_are_those_of_the_inputs(model, tokenizer, texts):
    moments = collect(model, tokenizer, texts)
    hidden, _ = direct(model, tokenizer, texts)
    with torch.no_grad():
        for layer, block in enumerate(model.transformer.h):
            prefix = f"transformer.h.{layer}."
            normed = block.ln_1(hidden[layer])
            square = moments[f"input_square.{prefix}attn.c_attn.weight"]
            torch.testing.assert_close(square, normed.square().mean(dim=0), rtol=1e-4, atol=1e-5)
            x, h = moments[f"ffn_in.{layer}"], moments[f"ffn_out.{layer}"]
            assert x.shape == (17, 17) and h.shape == (65, 65) and x.dtype == h.dtype == torch.float32
            torch.testing.assert_close(x, x.T)
            torch.testing.assert_close(h, h.T)
            assert x[-1, -1] == h[-1, -1] == 1
            for matrix, moment in (("mlp.c_fc", x), ("mlp.c_proj", h)):
                assert torch.equal(moments[f"input_square.{prefix}{matrix}.weight"], moment.diagonal()[:-1])
    assert set(moments) == {
        "influence",
        *(f"{side}.{layer}" for side in ("ffn_in", "ffn_out") for layer in range(4)),
        *(f"input_square.transformer.h.{layer}.{name}" for layer in range(4) for name in GPT2.block_matrices),
    }


def test_ffn_moments_against_numpy_on_all_positions(model, tokenizer, texts):
    moments = collect(model, tokenizer, texts)
    _, windows = direct(model, tokenizer, texts)
    inputs = {}
    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: inputs.update({name: i[0]}))
        for name, module in model.named_modules()
        if name.endswith(("mlp.c_fc", "mlp.c_proj", "attn.c_proj"))
    ]
    with torch.no_grad():
        model(torch.from_numpy(windows))
    for handle in handles:
        handle.remove()
    for layer in range(4):
        for module, key in (("mlp.c_fc", "ffn_in"), ("mlp.c_proj", "ffn_out")):
            x = inputs[f"transformer.h.{layer}.{module}"].reshape(320, -1)[:300].double().numpy()
            x = np.hstack([x, np.ones((300, 1))])
            np.testing.assert_allclose(moments[f"{key}.{layer}"].numpy(), x.T @ x / 300, rtol=1e-4, atol=1e-4)
        x = inputs[f"transformer.h.{layer}.attn.c_proj"].reshape(320, -1)[:300].double()
        found = moments[f"input_square.transformer.h.{layer}.attn.c_proj.weight"]
        torch.testing.assert_close(found.double(), x.square().mean(dim=0), rtol=1e-4, atol=1e-5)


def test_influence_is_one_less_the_cosine_of_input_and_output(model, tokenizer, texts):
    influence = collect(model, tokenizer, texts)["influence"]
    hidden, _ = direct(model, tokenizer, texts)
    for layer in range(4):
        a, b = hidden[layer].double(), hidden[layer + 1].double()
        cosine = (a * b).sum(dim=1) / a.norm(dim=1) / b.norm(dim=1)
        assert float(influence[layer]) == pytest.approx(1 - float(cosine.mean()), abs=1e-5)


def test_a_block_that_adds_nothing_has_no_influence(make_gpt2, tokenizer, texts):
    model = make_gpt2()
    with torch.no_grad():
        for module in (model.transformer.h[2].attn.c_proj, model.transformer.h[2].mlp.c_proj):
            module.weight.zero_()
            module.bias.zero_()
    influence = collect(model, tokenizer, texts)["influence"]
    assert float(influence[2]) == pytest.approx(0, abs=1e-6) and (influence[[0, 1, 3]] > 1e-4).all()


def test_batches_do_not_matter_and_hooks_are_gone(model, tokenizer, texts, monkeypatch):
    hooks = [len(module._forward_hooks) for module in model.modules()]  # transformers may have its own
    whole = collect(model, tokenizer, texts)
    monkeypatch.setattr("ffnfold.calibration_text.BATCH_TOKENS", 64)
    parts = collect(model, tokenizer, texts)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


@pytest.mark.parametrize("padded", [False, True])
def test_the_positions_are_the_alignments(model, tokenizer, texts, padded):
    changes = {"count_padding": padded, "max_items": 7}
    moments = collect(model, tokenizer, texts, **changes)
    settings, generator = {**SETTINGS, **changes}, np.random.default_rng(0)
    batches = calibration_batches(model, tokenizer, texts, "\n", settings, generator, "cpu", 1)
    statistics = correlate_layers(model, batches)
    names = ffn_names(GPT2, 1)
    weight, bias = model.get_parameter(names["in_weight"]), model.get_parameter(names["in_bias"])
    mean = (moments["ffn_in.1"][-1, :-1] @ weight + bias).detach()  # the mean pre-activation, from the mean input
    expected = statistics._sum[1] / statistics.count + statistics._shift[1, 0]
    torch.testing.assert_close(mean.double(), expected, rtol=1e-3, atol=1e-4)


def test_linear_layers_and_another_familys_names(tokenizer, texts):
    import transformers

    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(vocab_size=300, **shape)).eval()
    moments = collect(model, tokenizer, texts)
    assert moments["ffn_in.1"].shape == (17, 17) and moments["ffn_out.1"].shape == (25, 25)
    for matrix, features in zip(FAMILIES["gpt_neox"].block_matrices, (16, 16, 16, 24), strict=True):
        assert moments[f"input_square.gpt_neox.layers.1.{matrix}"].shape == (features,)
    assert (moments["influence"] > 0).all() and moments["influence"].shape == (2,)


def test_windows_beyond_the_models_positions_are_refused(model, tokenizer, texts):
    with pytest.raises(InputError, match="more than the base's positions"):
        collect(model, tokenizer, texts, sequence_length=65)


def test_activations_that_are_not_finite_are_refused(make_gpt2, tokenizer, texts):
    model = make_gpt2()
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        collect(model, tokenizer, texts)


def test_saved_moments_come_back_one_by_one(tmp_path):
    tensors = {
        "ffn_in.1": torch.rand(3, 3),
        "ffn_out.0": torch.rand(5, 5),
        "input_square.a.weight": torch.rand(4),
        "influence": torch.rand(2),
    }
    path = tmp_path / "moments.safetensors"
    save_moments(tensors, path)
    for moments in (Moments(path), Moments(str(path)), Moments(tensors)):
        assert torch.equal(moments.ffn_in(1), tensors["ffn_in.1"])
        assert torch.equal(moments.ffn_out(0), tensors["ffn_out.0"])
        assert torch.equal(moments.input_square("a.weight"), tensors["input_square.a.weight"])
        assert torch.equal(moments.influence(), tensors["influence"])


@pytest.mark.parametrize("content", [None, b"", b"no tensors", "truncated", "without"])
def test_a_broken_file_says_what_to_do(tmp_path, content):
    path = tmp_path / "moments.safetensors"
    if content in ("truncated", "without"):
        save_moments({"other" if content == "without" else "influence": torch.rand(100)}, path)
        if content == "truncated":
            path.write_bytes(path.read_bytes()[:-8])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="moments cannot be read") as error:
        Moments(path).influence()
    assert str(path) in str(error.value) and "run the workflow again" in str(error.value)

"""The local fit of groups' FFNs to what their members give."""

import pytest
import torch
from ffnfold import fitting
from ffnfold.architecture import FAMILIES, ffn_names
from ffnfold.checkpoints import load_model, load_state, save_model, verify_checkpoint
from ffnfold.errors import InputError
from ffnfold.fitting import ffn_fitter
from ffnfold.grouping import Group
from ffnfold.resumption import INTERVAL_VARIABLE

GPT2 = FAMILIES["gpt2"]
OPTIONS = {"steps": 30, "batch_size": 4, "sequence_length": 16, "learning_rate": 0.01}
PAIR = Group((1, 3), 1)


def ffn_of(state, layer):
    return {part: state[name] for part, name in ffn_names(GPT2, layer).items()}


@pytest.fixture
def base_of(make_gpt2, tokenizer_directory, tmp_path):
    """A function that writes a base with dropout in its configuration; some blocks may share their FFN's values."""

    def write(equal=(), model=None):
        model = model or make_gpt2(resid_pdrop=0.1)
        with torch.no_grad():
            for layer in equal:
                for part, name in ffn_names(GPT2, layer).items():
                    model.get_parameter(name).copy_(model.get_parameter(ffn_names(GPT2, equal[0])[part]))
        save_model(tmp_path / "base", model, tokenizer_directory)
        return tmp_path / "base"

    return write


@pytest.fixture
def data(texts):
    return {"language_modeling": ({"text": texts * 3}, "\n")}


def relative_error(base, ffns, groups):
    """The fit's loss on one batch, from the definition: GPT-2's FFN written out."""
    model, inputs, outputs = load_model(base), {}, {}

    def keep(layer):
        def hook(module, given, output):
            inputs[layer], outputs[layer] = given[0], output

        return hook

    for layer, block in enumerate(model.transformer.h):
        block.mlp.register_forward_hook(keep(layer))
    with torch.no_grad():
        model(input_ids=torch.arange(64).reshape(4, 16))
    total = 0.0
    for ffn, group in zip(ffns, groups, strict=True):
        for layer in group.members:
            inner = model.transformer.h[0].mlp.act(inputs[layer] @ ffn["in_weight"] + ffn["in_bias"])
            given = inner @ ffn["out_weight"] + ffn["out_bias"]
            total += float((given - outputs[layer]).square().mean() / outputs[layer].square().mean())
    return total


def test_an_ffn_that_gives_what_its_members_give_stays(base_of, data, caplog):
    base = base_of(equal=(1, 3))
    ffn = ffn_of(load_state(base), 1)
    assert relative_error(base, [ffn], [PAIR]) < 1e-10
    with caplog.at_level("INFO", logger="ffnfold.training"):
        (fitted,) = ffn_fitter(base, data, "", 1, "cpu")([ffn], [PAIR], {**OPTIONS, "learning_rate": 1e-6})
    assert "loss 0.0000" in caplog.text
    for part in ffn:
        torch.testing.assert_close(fitted[part], ffn[part], rtol=0, atol=1e-4)


def test_an_ffn_comes_nearer_to_two_different_members(base_of, data):
    base = base_of()
    state = load_state(base)
    mean = {part: (tensor + ffn_of(state, 3)[part]) / 2 for part, tensor in ffn_of(state, 1).items()}
    given = {part: tensor.clone() for part, tensor in mean.items()}
    (fitted,) = ffn_fitter(base, data, "", 1, "cpu")([mean], [PAIR], {**OPTIONS, "steps": 60})
    assert fitted.keys() == mean.keys() and all(fitted[part].shape == mean[part].shape for part in mean)
    assert relative_error(base, [fitted], [PAIR]) < 0.8 * relative_error(base, [mean], [PAIR])
    assert all(torch.equal(given[part], mean[part]) for part in mean), "what was given is not changed"
    assert not any(tensor.requires_grad for tensor in fitted.values())


def test_groups_are_fitted_apart_and_groups_of_one_not_at_all(base_of, data):
    base = base_of()
    state = load_state(base)
    groups = [Group((0, 2), 2), Group((1,), 1), Group((3,), 3)]
    ffns = [ffn_of(state, 0), ffn_of(state, 1), ffn_of(state, 3)]
    fit = ffn_fitter(base, data, "", 1, "cpu")
    fitted = fit(ffns, groups, OPTIONS)
    assert all(fitted[i][part] is ffns[i][part] for i in (1, 2) for part in ffns[i])
    assert not torch.equal(fitted[0]["in_weight"], ffns[0]["in_weight"])
    assert [f["in_bias"] is g["in_bias"] for f, g in zip(fit(ffns[1:], groups[1:], OPTIONS), ffns[1:], strict=True)]
    whole = fit(ffns, groups, {**OPTIONS, "steps": 0})
    assert all(whole[0][part] is ffns[0][part] for part in ffns[0])


def test_the_fit_is_deterministic_and_leaves_the_base_alone(base_of, data, monkeypatch):
    base, models = base_of(), []
    before = load_state(base)

    def kept(folder):
        models.append(load_model(folder))
        return models[-1]

    monkeypatch.setattr(fitting, "load_model", kept)
    fitted = []
    for seed, global_seed in ((1, 7), (1, 8), (2, 8)):
        torch.manual_seed(global_seed)
        fitted += ffn_fitter(base, data, "", seed, "cpu")([ffn_of(before, 1)], [PAIR], OPTIONS)
    assert all(torch.equal(fitted[0][part], fitted[1][part]) for part in fitted[0])
    assert not torch.equal(fitted[0]["in_weight"], fitted[2]["in_weight"]), "another seed reads another order"
    verify_checkpoint(base)
    for model in models:
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
        assert not any(module._forward_hooks for module in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_a_fit_that_is_killed_goes_on(base_of, data, tmp_path, monkeypatch):
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")
    base = base_of()
    ffn, options, calls = ffn_of(load_state(base), 1), {**OPTIONS, "steps": 6}, []
    (whole,) = ffn_fitter(base, data, "", 1, "cpu")([ffn], [PAIR], options)
    loss_of = fitting._member_loss

    def dying(*arguments):
        loss = loss_of(*arguments)

        def counted(model, batch):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return loss(model, batch)

        return counted

    monkeypatch.setattr(fitting, "_member_loss", dying)
    fit = ffn_fitter(base, data, "", 1, "cpu", tmp_path / "state")
    with pytest.raises(KeyboardInterrupt):
        fit([ffn], [PAIR], options)
    (resumed,) = fit([ffn], [PAIR], options)
    assert len(calls) == 4 + 3 and all(torch.equal(whole[part], resumed[part]) for part in whole)


def test_a_block_whose_ffn_gives_nothing_does_no_harm(base_of, data, make_gpt2):
    model = make_gpt2()
    with torch.no_grad():
        for part in ("out_weight", "out_bias"):
            model.get_parameter(ffn_names(GPT2, 3)[part]).zero_()
    base = base_of(model=model)
    (fitted,) = ffn_fitter(base, data, "", 1, "cpu")([ffn_of(load_state(base), 1)], [PAIR], OPTIONS)
    assert all(torch.isfinite(tensor).all() for tensor in fitted.values())


def test_sequences_longer_than_the_bases_positions_are_refused(base_of, data):
    base = base_of()
    with pytest.raises(InputError, match="positions"):
        ffn_fitter(base, data, "", 1, "cpu")([ffn_of(load_state(base), 1)], [PAIR], {**OPTIONS, "sequence_length": 65})

"""Shared FFNs, controls and every option of the surgery, as a whole study: built, recovered, measured, asked about."""

import json
import re

import pandas as pd
import pytest
from ffnfold.answers import read_answers
from ffnfold.architecture import FAMILIES, ffn_names
from ffnfold.checkpoints import load_model, load_state
from ffnfold.expand import expand_checkpoint
from ffnfold.records import METRICS
from running import planned, snakemake, succeed, tiny_study, write_study

FFN = 2 * 16 * 64 + 64 + 16  # hidden size 16, 64 neurons
TRAINED = {"steps": 1, "batch_size": 2, "sequence_length": 32}
VARIANTS = {
    "gpt2": {"method": "baseline"},
    "merged_4": {"method": "merge", "n": 4},
    "shared_4": {"method": "share", "n": 4},
    "shared_4_deltas": {"method": "share", "n": 4, "rank": 2, "train": "deltas"},
    "shared_4_weights": {"method": "share", "n": 4, "align": "weights", "groups": "similarity", "reference": "medoid"},
    "shared_4_regression": {"method": "share", "n": 4, "average": "regression"},
    "shared_4_fitted": {"method": "share", "n": 4, "align": "none", "fit": TRAINED},
    "compressed_10_window": {"method": "compress", "n": 10, "groups": "window"},
    "dropped_4": {"method": "drop", "n": 4, "by": "influence"},
    "bypassed_4": {"method": "bypass", "n": 4},
    "pruned": {"method": "prune", "scope": "blocks", "score": "wanda", "keep_share": 0.8},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study of one variant for each way to build, recovered with the base as a teacher."""
    folder = tmp_path_factory.mktemp("sharing")
    study = tiny_study()
    study["variants"] = VARIANTS
    study["recovery"]["teacher"] = "base"
    study["questions"] = {
        "tying": {"question": "What does tying cost?", "variant": "shared_4", "against": "merged_4"},
        "size": {"question": "Is <any> FFN better than none?", "variant": "shared_4", "against": "bypassed_4"},
    }
    path = write_study(folder / "sharing.yaml", study)
    succeed(folder, "all", study=path)
    return folder


def built(done, variant):
    return done / f"results/sharing/variants/{variant}/built"


def recovered(done, variant):
    return done / f"results/sharing/variants/{variant}/recovered/0"


def test_nothing_is_stale_afterwards(done):
    assert planned(snakemake(done, "-n", "all", study=done / "sharing.yaml")) == []


def test_stored_parameters_are_exact(done):
    table = pd.read_csv(done / "results/sharing/tables/parameters.csv").set_index("variant")
    stored = table["stored_parameters"].dropna()
    whole = stored["gpt2"]
    for variant in ("shared_4", "shared_4_weights", "shared_4_regression", "shared_4_fitted", "bypassed_4"):
        assert stored[variant] == whole - 9 * FFN, variant
    assert stored["shared_4_deltas"] == whole - 9 * FFN + 12 * 2 * 2 * (16 + 64)
    assert stored["merged_4"] == stored["pruned"] == whole
    assert stored["compressed_10_window"] == stored["dropped_4"]
    assert table["nonzero_parameters"]["pruned"] == round(0.8 * whole)


def test_a_recovered_shared_model_is_tied_and_expands_to_the_same_logits(done, tmp_path):
    import torch

    model = load_model(recovered(done, "shared_4"))
    blocks = model.transformer.h
    assert blocks[3].mlp is blocks[0].mlp and blocks[4].mlp is blocks[7].mlp is not blocks[0].mlp
    assert sum(p.numel() for p in model.parameters()) == sum(
        t.numel() for t in load_state(recovered(done, "shared_4")).values()
    )
    expand_checkpoint(recovered(done, "shared_4"), tmp_path / "stock")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "stock")(ids).logits, model(ids).logits)


def test_recovery_of_the_deltas_leaves_every_other_byte(done):
    before, after = load_state(built(done, "shared_4_deltas")), load_state(recovered(done, "shared_4_deltas"))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and all(name.rpartition(".")[2].startswith("delta_") for name in changed)
    before, after = load_state(built(done, "shared_4")), load_state(recovered(done, "shared_4"))
    assert not any(before[name].equal(after[name]) for name in ffn_names(FAMILIES["gpt2"], 4).values())


def test_the_builds_note_what_they_chose(done):
    notes = {name: json.loads((built(done, name) / "build.json").read_text()) for name in VARIANTS}
    assert notes["shared_4"]["groups"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    alike = notes["shared_4_weights"]
    assert sorted(map(len, alike["groups"])) == [4, 4, 4]
    assert all(anchor in group for anchor, group in zip(alike["anchors"], alike["groups"], strict=True))
    costs = notes["compressed_10_window"]["window_nats"]
    best = min(costs, key=costs.get)
    assert len(costs) == 3 and [len(g) for g in notes["compressed_10_window"]["groups"]].count(10) == 1
    chosen = next(group for group in notes["compressed_10_window"]["groups"] if len(group) > 1)
    assert list(map(int, best.split("-"))) == [chosen[0], chosen[-1]]
    assert len(notes["dropped_4"]["kept"]) == 3


def test_questions_are_answered_in_the_table_and_on_the_page(done):
    table = read_answers(done / "results/sharing/tables/questions.csv").set_index(["question", "value_name"])
    assert table.loc[("size", "stored_parameters"), "verdict"] == "as many as bypassed_4"
    # Right after surgery a tied model computes what the merged one does, to the bit.
    row = table.loc[("tying", "token_perplexity_before_recovery")]
    assert row["estimate"] == row["ci_low"] == row["ci_high"] == 1
    page = (done / "results/sharing/report/index.html").read_text()
    assert "What does tying cost?" in page and "Is &lt;any&gt; FFN better than none?" in page


def test_statistics_that_no_variant_needs_are_not_gathered(done, tmp_path):
    study = tiny_study()
    study["variants"] = {name: VARIANTS[name] for name in ("gpt2", "bypassed_4")}
    plan = planned(snakemake(tmp_path, "-n", "all", study=write_study(tmp_path / "few.yaml", study)))
    assert not {"align_layers", "align_weights", "collect_moments"} & set(plan)
    study["variants"]["pruned"] = VARIANTS["pruned"]
    plan = planned(snakemake(tmp_path, "-n", "all", study=write_study(tmp_path / "few.yaml", study)))
    assert "collect_moments" in plan and not {"align_layers", "align_weights"} & set(plan)


def test_a_base_of_the_second_family_goes_all_the_way(tmp_path, tokenizer_directory):
    import torch
    import transformers
    from ffnfold.checkpoints import save_model

    config = transformers.GPTNeoXConfig(
        num_hidden_layers=4, hidden_size=16, intermediate_size=64, num_attention_heads=2, vocab_size=304,
        max_position_embeddings=128, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(tmp_path / "pythia", transformers.GPTNeoXForCausalLM(config), tokenizer_directory)
    study = tiny_study()
    study["base"] = {"source": str(tmp_path / "pythia")}
    study["variants"] = {
        "pythia": {"method": "baseline"},
        "shared_2": {"method": "share", "n": 2, "rank": 1, "average": "regression"},
        "compressed_2": {"method": "compress", "n": 2, "align": "weights"},
        "bypassed_2": {"method": "bypass", "n": 2},
    }
    path = write_study(tmp_path / "neox.yaml", study)
    succeed(tmp_path, "results/neox/report/index.html", study=path)
    table = pd.read_csv(tmp_path / "results/neox/tables/parameters.csv").set_index("variant")["stored_parameters"]
    assert table["shared_2"] == table["pythia"] - 2 * FFN + 4 * 2 * 1 * (16 + 64)
    assert table["bypassed_2"] == table["pythia"] - 2 * FFN
    model = load_model(tmp_path / "results/neox/variants/shared_2/recovered/0")
    assert type(model).__name__ == "SharedFFNGPTNeoXForCausalLM"
    assert model.gpt_neox.layers[1].mlp.dense_h_to_4h is model.gpt_neox.layers[0].mlp.dense_h_to_4h


def test_only_jobs_on_tied_models_read_the_module_of_their_classes(done):
    result = snakemake(done, "-n", "--forceall", "all", study=done / "sharing.yaml")
    reading, all_variants = set(), set()
    for block in re.split(r"^\[\w{3} \w{3} .*\]$", result.stdout + result.stderr, flags=re.MULTILINE):
        variant = next((w.split("=")[1] for w in block.replace(",", " ").split() if w.startswith("variant=")), None)
        all_variants.add(variant)
        if "ffnfold/sharing.py" in block:
            rule = next(line.split()[1] for line in block.splitlines() if line.startswith(("rule ", "localrule ")))
            reading.add((rule.rstrip(":"), variant))
    tied = {name for name, line in VARIANTS.items() if line["method"] in ("share", "bypass")}
    assert all_variants == {None, *VARIANTS}
    rules = ("build_variant", "recover_variant", *(f"measure_{m}" for m in METRICS if m != "parameters"))
    assert reading == {(rule, variant) for rule in rules for variant in tied}

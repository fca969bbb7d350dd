"""The audit's scenarios: one artefact at a time, and no stage made twice."""

import copy
from pathlib import Path

import pytest
import yaml
from ffnfold.artefacts import ARTEFACTS, artefacts_on
from ffnfold.errors import InputError
from ffnfold.methods import needs_of
from ffnfold.protocols import SECTIONS, effective
from ffnfold.scenarios import PUBLISHED, SOUND, Audit, load_audit
from ffnfold.study import load_study
from study_factory import refused

STUDIES = Path(__file__).parents[2] / "config" / "studies"


def audit_of(name="mini", **overrides):
    settings = {"study": name, "overrides": overrides}
    return load_audit(load_study(settings, STUDIES), settings, STUDIES, needs_of)


@pytest.fixture(scope="module")
def audit():
    return audit_of()


def settings_of(audit, scenario):
    """Everything a scenario sets for the audited variants, by variant and section."""
    study = audit.studies[scenario]
    found = {(v, s): effective(study, v, s) for v in audit.variants for s in SECTIONS}
    return {**found, "alignment": study["alignment"], **{v: audit.options(scenario, v) for v in audit.variants}}


def changed_keys(before, after):
    """`section.key` of what differs, `surgery` for a variant's own line."""
    keys = set()
    for place in before:
        section = place if place == "alignment" else place[1] if isinstance(place, tuple) else "surgery"
        names = {n for n in before[place].keys() | after[place].keys() if before[place].get(n) != after[place].get(n)}
        keys |= {"surgery"} if section == "surgery" and names else {f"{section}.{name}" for name in names}
    return keys


@pytest.mark.parametrize("artefact", ARTEFACTS, ids=lambda a: a.name)
def test_a_scenario_changes_its_artefact_and_nothing_else(audit, artefact):
    changed = changed_keys(settings_of(audit, SOUND), settings_of(audit, f"only_{artefact.name}"))
    assert changed and changed <= {*artefact.keys, *artefact.also}
    if artefact.part_of:
        assert f"without_{artefact.name}" not in audit.studies, "padded rows are cut rows"
        return
    changed = changed_keys(settings_of(audit, PUBLISHED), settings_of(audit, f"without_{artefact.name}"))
    assert changed and changed <= set(artefact.keys)


def test_all_artefacts_together_lead_from_the_published_settings_to_the_sound_ones(audit):
    different = changed_keys(settings_of(audit, SOUND), settings_of(audit, PUBLISHED))
    named = {key for artefact in ARTEFACTS for key in artefact.keys}
    # Budgets, lengths and the split are no artefacts: they are other choices, and the page's rerun has them.
    others = {key.partition(".")[2] for key in different - named}
    assert others <= {"batch_size", "schedule", "warmup_share", "generated_tokens", "prompt_tokens", "split"}


def test_the_base_the_data_and_the_seed_are_the_sound_studys(audit):
    for scenario in audit.studies.values():
        for key in ("base", "data", "seed", "device", "statistics"):
            assert scenario[key] == audit.studies[SOUND][key]


def test_an_artefact_of_one_metric_shares_every_training(audit):
    for variant in audit.variants:
        for stage in ("alignment", "built", "recovered"):
            assert audit.owner("only_score_padding", variant, stage) == SOUND
            assert audit.owner("without_score_padding", variant, stage) == audit.owner(PUBLISHED, variant, stage)
        assert audit.owner(PUBLISHED, variant, "recovered") == PUBLISHED
        assert audit.owner("only_score_padding", variant, "perplexity") == "only_score_padding"
        assert audit.owner("only_score_padding", variant, "sentiment") == SOUND


def test_another_training_is_made_and_measured_anew(audit):
    assert audit.owner("only_labels_on_padding", "merged_4", "built") == SOUND
    assert audit.owner("only_labels_on_padding", "merged_4", "recovered") == "only_labels_on_padding"
    assert audit.owner("only_labels_on_padding", "merged_4", "perplexity") == "only_labels_on_padding"


def test_a_scenario_that_changes_nothing_for_a_variant_is_left_out(audit):
    cells = {(c["metric"], c["variant"], c["scenario"]): c for c in audit.cells()}
    assert ("perplexity", "gpt2", "only_surgery") not in cells, "the baseline has no surgery"
    assert ("perplexity", "merged_4", "only_surgery") in cells
    assert ("sentiment", "gpt2", "without_pool_last_position") not in cells, "published at the last token"
    assert ("sentiment", "gpt2", "only_pool_last_position") in cells, "lent by the variant that has it"
    for metric in ("perplexity", "latency", "sentiment", "summarization"):
        for variant in audit.variants:
            assert {"sound", "published"} <= {s for m, v, s in cells if (m, v) == (metric, variant)}


def test_equal_owner_means_equal_settings(audit):
    for cell in audit.cells():
        scenario = SOUND if cell["scenario"] == "sound" else cell["scenario"]
        for section in (cell["metric"], "recovery"):
            mine, owners = (audit.settings(s, cell["variant"], section) for s in (scenario, cell["owner"]))
            if section == "recovery" and mine != owners:
                assert audit.settings(scenario, cell["variant"], cell["metric"])["stage"] == "built"
            else:
                assert mine == owners


def test_the_baseline_is_always_audited():
    audit = audit_of(audit={"variants": ["merged_4"]})
    assert audit.variants == ["gpt2", "merged_4"]


def test_what_the_page_says_of_the_published_protocols(audit):
    facts = audit.facts()
    assert facts["pads_masked"] == ["pruned_104M"] == facts["pooled_at_position"]
    assert facts["pads_learnt"] == ["gpt2", "merged_4", "compressed_4", "compressed_10"]
    assert facts["summarized_unrecovered"] == audit.variants
    said = audit.differences()
    assert said["score_padding"]["perplexity.score_padding"] == "false → true"
    assert 'pruned_104M: "longest" → "full"' in said["score_padding"]["perplexity.pad_to"]
    assert said["surgery"]["surgery"].split("; ") == [
        "pruned_104M: keep_share 0.8413267 → 0.940288",
        'pruned_104M: scope "all" → "embedding"',
        'merged_4: write "all" → "anchor"',
    ]
    assert said["calibrate_on_test"]["alignment.calibrate_on_test"] == "false → true"


def test_the_full_size_audit_has_the_same_scenarios(audit):
    full = audit_of("gpt2")
    assert list(full.studies) == list(audit.studies)
    assert full.studies[PUBLISHED]["base"]["source"] == "openai-community/gpt2"


def test_a_study_without_an_audit_has_the_sound_scenario_alone():
    audit = audit_of("mini_published")
    assert list(audit.studies) == [SOUND] and audit.cells() == [] and audit.differences() == {}
    assert audit.facts()["pads_masked"] == []


def test_a_scenario_that_does_not_fit_the_base_is_named():
    shape = {"architecture": {"positions": 120}}
    small = {"perplexity": {"window": 64}, "latency": {"prompt_tokens": 8}, "summarization": {"article_tokens": 40}}
    training = {"training": {"sequence_length": 64}}
    refused(
        audit_of,
        "audit scenario",
        "120",
        base={**shape, **training},
        metrics=small,
        recovery=training,
        alignment={"sequence_length": 64},
        variants={"distilgpt2": {"training": {"sequence_length": 64}}},
    )


def test_an_audited_variant_that_one_study_lacks_is_named(tmp_path):
    mine = {
        "extends": "mini",
        "variants": {"merged_5": {"method": "merge", "n": 5}},
        "audit": {"variants": ["merged_5"]},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    with pytest.raises(InputError, match="not in both studies") as error:
        audit_of(str(tmp_path / "mine.yaml"))
    assert "merged_5" in str(error.value) and "mini_published" in str(error.value)


def test_overrides_hold_for_both_sides_below_what_is_published():
    audit = audit_of(recovery={"training": {"steps": 5, "pack": True}}, metrics={"latency": {"threads": 2}})
    for scenario in (SOUND, PUBLISHED):
        assert audit.settings(scenario, "gpt2", "recovery")["steps"] == 5
        assert audit.settings(scenario, "gpt2", "latency")["threads"] == 2
    assert audit.settings(PUBLISHED, "gpt2", "recovery")["pack"] is False, "as published"


def test_trainings_on_another_prompt_are_not_shared(tmp_path):
    other = {"extends": "mini", "metrics": {"summarization": {"prompt": "\nIn short:"}}, "audit": {"against": None}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**other, "audit": {"against": None, "variants": []}}))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"extends": "mini", "audit": {"against": "other"}}))
    audit = audit_of(str(tmp_path / "mine.yaml"))
    assert audit.owner(PUBLISHED, "gpt2", "recovered") == PUBLISHED
    assert audit.owner(PUBLISHED, "gpt2", "built") == SOUND


def test_a_training_with_a_teacher_is_not_shared_with_the_published_one_which_had_none(tmp_path):
    packed = {"training": {"pack": True, "labels_on_padding": False}}

    def owner(mine, stage="recovered"):
        off = {"audit": {"against": None, "variants": []}}
        (tmp_path / "other.yaml").write_text(yaml.safe_dump({"extends": "mini", "recovery": packed, **off}))
        study = {"extends": "mini", "recovery": {**packed, **mine}, "audit": {"against": "other"}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
        return audit_of(str(tmp_path / "mine.yaml")).owner(PUBLISHED, "gpt2", stage)

    taught, hotter = {"teacher": "base"}, {"distillation": {"temperature": 3.0}}
    assert owner({}) == owner(hotter) == SOUND, "weights are not used without a teacher"
    assert owner(taught) == owner({**taught, **hotter}) == PUBLISHED
    assert owner(taught, "built") == SOUND and owner(taught, "perplexity") == PUBLISHED


def test_a_teacher_and_padded_rows_exclude_each_other():
    audit = audit_of(recovery={"teacher": "base"})
    teachers = {name: study["recovery"]["teacher"] for name, study in audit.studies.items()}
    assert teachers[SOUND] == teachers["only_score_padding"] == "base"
    assert teachers[PUBLISHED] is teachers["only_labels_on_padding"] is None
    own = {"distilgpt2": {"protocol": {"recovery": {"pack": False}}}}
    where = "variants.distilgpt2.protocol.recovery.pack"
    refused(audit_of, where, recovery={"teacher": "base"}, audit={"against": None}, variants=own)


def test_a_study_says_which_artefacts_are_on():
    assert artefacts_on(load_study({"study": "mini"}, STUDIES)) == []
    found = artefacts_on(load_study({"study": "mini_published"}, STUDIES))
    assert "latency.stop_at_end_of_text: true" in found and "alignment.calibrate_on_test: true" in found
    assert "settings of their own (distilgpt2, pruned_104M)" in found
    assert "write: anchor (merged_2, merged_4, merged_6, merged_8, merged_10)" in found
    assert 'sentiment.pool: "last_position" (pruned_104M)' in found


def test_the_studies_are_not_changed_by_an_audit():
    study = load_study({"study": "mini"}, STUDIES)
    before = copy.deepcopy(study)
    audit = load_audit(study, {"study": "mini"}, STUDIES, needs_of)
    assert isinstance(audit, Audit) and study == before

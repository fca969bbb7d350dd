"""The audit's scenarios: a sound study with some of the published artefacts on, without doing any work twice.

A scenario is a study. `published` takes every setting from the as-published study, on the sound study's base and data;
`only_X` turns one artefact on in the sound study; `without_X` turns one off in `published`. Two scenarios whose
settings up to some stage are the same share its files: those of the first that has them, the sound study before all.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffnfold.artefacts import ARTEFACTS, Artefact
from ffnfold.protocols import METRIC_SECTIONS, SECTIONS, check_protocols, effective, method_options
from ffnfold.relations import check_against_base
from ffnfold.study import load_audited, pretrained_config, study_path

SOUND = ""  # the sound study's own name among the scenarios
PUBLISHED = "published"
#: What a metric reads of its variant, in the order in which they are made.
STAGES = ("alignment", "built", "recovered")


class Audit:
    """Scenarios of a sound study, and whose files each of them reads.

    Args:
        study: the sound study, validated.
        published: the as-published study, validated; None where the study has no audit.
        needs: a variant's options -> what its build needs (`methods.needs_of`).
    """

    def __init__(
        self,
        study: Mapping[str, Any],
        published: Mapping[str, Any] | None,
        needs: Callable[[Mapping[str, Any]], Collection[str]],
    ) -> None:
        self._needs = needs
        self.baseline = next(name for name, line in study["variants"].items() if line["method"] == "baseline")
        self.variants: list[str] = []
        self.studies: dict[str, Mapping[str, Any]] = {SOUND: study}
        self._artefacts: dict[str, Artefact] = {}
        if published is None:
            return
        self.variants = list(dict.fromkeys([self.baseline, *study["audit"]["variants"]]))
        sound, whole = _spelt_out(study), _on_base_of(study, _spelt_out(published))
        self.studies[PUBLISHED] = whole
        for artefact in ARTEFACTS:
            keys = (*artefact.keys, *artefact.also)
            self._add(f"only_{artefact.name}", artefact, self._with(sound, whole, keys, lend=True))
            if not artefact.part_of:
                self._add(f"without_{artefact.name}", artefact, self._with(whole, sound, artefact.keys))
        for name, scenario in self.studies.items():
            check_protocols(scenario, f"audit scenario {name}" if name else "the study")

    def _add(self, name: str, artefact: Artefact, scenario: Mapping[str, Any]) -> None:
        self.studies[name], self._artefacts[name] = scenario, artefact

    def _with(
        self, study: Mapping[str, Any], other: Mapping[str, Any], keys: Sequence[str], lend: bool = False
    ) -> dict[str, Any]:
        """`study` with an artefact's settings, `keys`, from `other`.

        With `lend`, a variant for which the two do not differ takes the first audited variant's values that do: every
        audited variant then shows what the artefact does to it.
        """
        result = copy.deepcopy(dict(study))
        for key in keys:
            section, _, name = key.partition(".")
            if section == "alignment":
                result["alignment"][name] = other["alignment"][name]
                continue
            lenders = [v for v in self.variants if _get(other, v, key) != _get(study, v, key)] if lend else []
            for variant in self.variants:
                lender = variant
                if lend and section != "surgery" and lenders and not self._own(study, other, variant, keys):
                    lender = lenders[0]
                _set(result, variant, key, _get(other, lender, key))
        if not all(_get(result, variant, "recovery.pack") for variant in self.variants):
            # A teacher is matched at every position, so padded rows do without.
            result["recovery"]["teacher"] = None
        return result

    @staticmethod
    def _own(study: Mapping[str, Any], other: Mapping[str, Any], variant: str, keys: Sequence[str]) -> bool:
        """Whether an artefact changes a variant's own settings."""
        own = [key for key in keys if not key.startswith("alignment.")]
        return any(_get(other, variant, key) != _get(study, variant, key) for key in own)

    # ---------------------------------------------------------------------------------------------- identities

    def options(self, scenario: str, variant: str) -> dict[str, Any]:
        """What a variant's surgery depends on."""
        return method_options(self.studies[scenario]["variants"][variant])

    def settings(self, scenario: str, variant: str, section: str) -> dict[str, Any]:
        """A variant's settings of recovery or of a metric in a scenario."""
        study = self.studies[scenario]
        if section not in SECTIONS:  # parameters are counted in one way
            return study["metrics"][section]
        return effective(study, variant, section)

    def _identity(self, scenario: str, variant: str, stage: str) -> Any:
        """All of a scenario that a stage of a variant depends on; equal for two scenarios that share its files."""
        study = self.studies[scenario]
        if stage == "alignment":
            return study["alignment"]
        options = self.options(scenario, variant)
        needs, tasks = self._needs(options), study["recovery"]["tasks"]
        # The prompt stands between an article and its summary where a training reads them.
        texts = (tasks, study["metrics"]["summarization"]["prompt"] if "summarization" in tasks else "")
        built = (
            options,
            study["alignment"] if {"alignment", "moments"} & set(needs) else None,
            texts if "data" in needs else None,
        )
        if stage == "built":
            return built
        recovery = study["recovery"]
        taught = (recovery["teacher"], recovery["distillation"]) if recovery["teacher"] is not None else None
        recovered = (built, effective(study, variant, "recovery"), texts, taught)
        if stage == "recovered":
            return recovered
        settings = self.settings(scenario, variant, stage)
        model = built if settings.get("stage") == "built" else recovered
        return model, settings, self._identity(scenario, self.baseline, "recovered") if stage == "latency" else None

    def owner(self, scenario: str, variant: str, stage: str) -> str:
        """The scenario whose files a stage (one of STAGES, or a metric) of a variant reads.

        Args:
            scenario: SOUND, or a name in `studies`.
            variant: audited, or the baseline.
        """
        wanted = self._identity(scenario, variant, stage)
        return next(name for name in self.studies if self._identity(name, variant, stage) == wanted)

    # ---------------------------------------------------------------------------------------------- what to say

    def facts(self) -> dict[str, list[str]]:
        """How the audited variants are trained and measured as published, for the words of the audit."""
        facts: dict[str, list[str]] = {"baseline": [self.baseline], "audited": self.variants}

        def having(**wanted: Any) -> list[str]:
            read = {key: key.split("__") for key in wanted}
            return [
                v
                for v in self.variants
                if all(self.settings(PUBLISHED, v, read[k][0])[read[k][1]] == value for k, value in wanted.items())
            ]

        scored = {"perplexity__score_padding": True}
        facts["pads_masked"] = having(recovery__labels_on_padding=False, **scored)
        facts["pads_learnt"] = having(recovery__labels_on_padding=True, **scored)
        facts["pooled_at_position"] = having(sentiment__pool="last_position")
        facts["summarized_unrecovered"] = having(summarization__stage="built")
        return facts

    def differences(self) -> dict[str, dict[str, str]]:
        """Artefact → setting → its values, sound and as published; variants with a value of their own are named."""
        sound, published = (self.studies[name] for name in (SOUND, PUBLISHED)) if self.variants else ({}, {})
        return {a.name: {key: self._difference(sound, published, key) for key in a.keys} for a in ARTEFACTS if sound}

    def _difference(self, sound: Mapping[str, Any], published: Mapping[str, Any], key: str) -> str:
        section, _, name = key.partition(".")
        if section == "alignment":
            return f"{_said(sound['alignment'][name])} → {_said(published['alignment'][name])}"
        if section == "surgery":
            lines = {v: [method_options(s["variants"][v]) for s in (sound, published)] for v in self.variants}
            changed = [
                f"{v}: {option} {_said(before.get(option))} → {_said(after[option])}"
                for v, (before, after) in lines.items()
                for option in after
                if before.get(option) != after[option]
            ]
            return "; ".join(changed) or "the same"
        values: dict[tuple[str, str], list[str]] = {}
        for variant in self.variants:
            pair = tuple(_said(self.settings(s, variant, section)[name]) for s in (SOUND, PUBLISHED))
            values.setdefault(pair, []).append(variant)
        common = max(values, key=lambda pair: len(values[pair]))
        others = [f"{', '.join(v)}: {a} → {b}" for (a, b), v in values.items() if (a, b) != common]
        return "; ".join([f"{common[0]} → {common[1]}", *others])

    # ---------------------------------------------------------------------------------------------- what to run

    def cells(self) -> list[dict[str, Any]]:
        """What the audit compares: for each metric and variant the scenarios, with whose record each reads.

        Returns:
            Mappings metric, variant, scenario, artefact (None for sound and published), owner. A scenario that changes
            nothing for a variant is left out.
        """
        if not self.variants:
            return []
        cells = []
        for metric in METRIC_SECTIONS:
            for variant in self.variants:
                for scenario in self.studies:
                    artefact = self._artefacts.get(scenario)
                    if artefact and metric not in artefact.metrics:
                        continue
                    owner = self.owner(scenario, variant, metric)
                    start = PUBLISHED if scenario.startswith("without_") else SOUND
                    if artefact and owner == self.owner(start, variant, metric):
                        continue
                    cells.append(
                        {
                            "metric": metric,
                            "variant": variant,
                            "scenario": scenario or "sound",
                            "artefact": artefact.name if artefact else None,
                            "owner": owner,
                        }
                    )
        return cells


def _said(value: Any) -> str:
    """A setting's value as YAML writes it, on one line."""
    return json.dumps(value, ensure_ascii=False)


def load_audit(
    study: Mapping[str, Any],
    settings: Mapping[str, Any],
    studies: Path,
    needs: Callable[[Mapping[str, Any]], Collection[str]],
) -> Audit:
    """The audit of a study, which has no scenarios where the study names no other to audit against.

    Args:
        study: the sound study, validated.
        settings: of config.yaml and the command line, which name its file.
        studies: folder of the named studies.
        needs: as of `Audit`.

    Raises:
        InputError: the as-published study is missing or wrong, or a scenario does not fit the base.
    """
    path = study_path(settings["study"], studies)
    audit = Audit(study, load_audited(study, path, studies, settings.get("overrides") or {}), needs)
    if study["base"]["source"] is None:
        for name, scenario in audit.studies.items():
            if name != SOUND:
                check_against_base(scenario, pretrained_config(study), f"{path}: audit scenario {name}")
    return audit


def _spelt_out(study: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a study in which every variant has every section of its protocol in full."""
    result = copy.deepcopy(dict(study))
    for name, line in result["variants"].items():
        line["protocol"] = {section: effective(study, name, section) for section in SECTIONS}
    return result


def _on_base_of(study: Mapping[str, Any], published: dict[str, Any]) -> dict[str, Any]:
    """The as-published settings on the sound study's base, data and machine, for the variants of both."""
    shared = {key: study[key] for key in study if key not in ("alignment", "recovery", "metrics", "variants")}
    return {**published, **copy.deepcopy(shared)}


def _get(study: Mapping[str, Any], variant: str, key: str) -> Any:
    section, _, name = key.partition(".")
    line = study["variants"][variant]
    return method_options(line) if section == "surgery" else line["protocol"][section][name]


def _set(study: dict[str, Any], variant: str, key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    line = study["variants"][variant]
    if section == "surgery":
        study["variants"][variant] = {**copy.deepcopy(value), "protocol": line["protocol"]}
    else:
        line["protocol"][section][name] = copy.deepcopy(value)

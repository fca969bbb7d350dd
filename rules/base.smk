"""The dense base: fetched from the hub or a folder, or pretrained on the study's text; to results/{study}/base/."""

BASE_FILES = checkpoint_files(STUDY["base"]["source"] or STUDY["base"]["tokenizer"]["source"])

if STUDY["base"]["source"] is None:

    rule pretrain_base:
        """Train the base from random weights on the study's own text."""
        input:
            data=infos_of(STUDY["base"]["tasks"]),
            tokenizer=ancient(BASE_FILES),
            script=script_of("pretrain_base"),
            library=library_of("pretrain_base"),
        output:
            model="results/{study}/base/model.safetensors",
            config="results/{study}/base/config.json",
            manifest="results/{study}/base/manifest.json",
        params:
            config=pretrained_config(STUDY),
            architecture=STUDY["base"]["architecture"],
            tokenizer=STUDY["base"]["tokenizer"],
            training=STUDY["base"]["training"],
            prompt=prompt_for(STUDY, STUDY["base"]["tasks"]),
            seed=STUDY["seed"],
            device=STUDY["device"],
            contents=contents(BASE_FILES),
        log:
            "results/{study}/logs/pretrain_base/base.log",
        benchmark:
            "results/{study}/benchmarks/pretrain_base/base.tsv"
        conda:
            "../envs/ffnfold.yaml"
        threads: 2
        resources:
            gpu=wants_gpu,
        script:
            "../workflow/scripts/pretrain_base.py"

else:

    rule fetch_base:
        """Take in the base checkpoint in canonical form."""
        input:
            files=ancient(BASE_FILES),
            script=script_of("fetch_base"),
            library=library_of("fetch_base"),
        output:
            model="results/{study}/base/model.safetensors",
            config="results/{study}/base/config.json",
            manifest="results/{study}/base/manifest.json",
        params:
            source=STUDY["base"]["source"],
            revision=STUDY["base"]["revision"],
            contents=contents(BASE_FILES),
        log:
            "results/{study}/logs/fetch_base/base.log",
        benchmark:
            "results/{study}/benchmarks/fetch_base/base.tsv"
        conda:
            "../envs/ffnfold.yaml"
        threads: 1
        script:
            "../workflow/scripts/fetch_base.py"


rule measure_gates:
    """Check the dense base against the values that it is known to have, before anything is made of it."""
    input:
        base="results/{study}/base/manifest.json",
        data="results/{study}/data/language_modeling/dataset_info.json",
        script=script_of("measure_gates"),
        library=library_of("measure_gates"),
    output:
        gates="results/{study}/gates.json",
    params:
        known=known_values(STUDY),
        enforce=STUDY["gates"]["enforce"],
        batch_size=STUDY["metrics"]["perplexity"]["batch_size"],
        statistics=STUDY["statistics"],
        seed=STUDY["seed"],
        device=STUDY["device"],
    log:
        "results/{study}/logs/measure_gates/gates.log",
    benchmark:
        "results/{study}/benchmarks/measure_gates/gates.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 2
    localrule: not STUDY["gates"]["known"]  # an empty list needs no node of a cluster
    resources:
        gpu=gates_want_gpu,
    script:
        "../workflow/scripts/measure_gates.py"

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

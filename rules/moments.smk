"""Moments: base and training text to results/{study}/alignment/moments.safetensors."""


rule collect_moments:
    """Gather second moments of the inputs of the blocks' matrices on the training text."""
    input:
        base="results/{study}/base/manifest.json",
        data="results/{study}/data/language_modeling/dataset_info.json",
        gates=ancient(GATES),  # a barrier, not data: what it found changes nothing that is built
        script=script_of("collect_moments"),
        library=library_of("collect_moments"),
    output:
        moments="results/{study}/alignment/moments.safetensors",
    params:
        settings=alignment_settings,
        seed=STUDY["seed"],
        device=STUDY["device"],
    log:
        "results/{study}/logs/collect_moments/moments.log",
    benchmark:
        "results/{study}/benchmarks/collect_moments/moments.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 2
    resources:
        gpu=wants_gpu,
    script:
        "../workflow/scripts/collect_moments.py"

"""Alignment: base and training text to results/{study}/alignment/, a permutation for each pair of blocks."""


rule align_layers:
    """Match the FFN neurons of all pairs of blocks by correlation."""
    input:
        base="results/{study}/base/manifest.json",
        data="results/{study}/data/language_modeling/dataset_info.json",
        gates=ancient(GATES),  # a barrier, not data: what it found changes nothing that is built
        script=script_of("align_layers"),
        library=library_of("align_layers"),
    output:
        permutations="results/{study}/alignment/permutations.safetensors",
        similarity="results/{study}/alignment/similarity.csv",
    params:
        settings=alignment_settings,
        seed=STUDY["seed"],
        device=STUDY["device"],
    log:
        "results/{study}/logs/align_layers/alignment.log",
    benchmark:
        "results/{study}/benchmarks/align_layers/alignment.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 2
    resources:
        gpu=wants_gpu,
    script:
        "../workflow/scripts/align_layers.py"


rule align_weights:
    """Match the FFN neurons of all pairs of blocks by their weights."""
    input:
        base="results/{study}/base/manifest.json",
        gates=ancient(GATES),  # a barrier, not data: what it found changes nothing that is built
        script=script_of("align_weights"),
        library=library_of("align_weights"),
    output:
        permutations="results/{study}/alignment/weights.safetensors",
        similarity="results/{study}/alignment/weights_similarity.csv",
    log:
        "results/{study}/logs/align_weights/alignment.log",
    benchmark:
        "results/{study}/benchmarks/align_weights/alignment.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 2
    script:
        "../workflow/scripts/align_weights.py"

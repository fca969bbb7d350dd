"""Floors: what needs no language model, on the metrics' own items, to results/{study}/floors/{floor}.json."""


rule measure_floor:
    """One way to reach a metric without a language model."""
    input:
        base="results/{study}/base/manifest.json",
        data=floor_data,
        script=script_of("measure_floor"),
        library=floor_library,
    output:
        record="results/{study}/floors/{floor}.json",
        scores="results/{study}/floors/{floor}.parquet",
    params:
        settings=floor_settings,
        statistics=STUDY["statistics"],
        seed=STUDY["seed"],
        device="cpu",
    log:
        "results/{study}/logs/measure_floor/{floor}.log",
    benchmark:
        "results/{study}/benchmarks/measure_floor/{floor}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/measure_floor.py"

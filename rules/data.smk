"""Data: from the study's sources to results/{study}/data/{task}/, three splits and dataset_info.json with fingerprints."""


rule prepare_data:
    """Write one task's splits from the embedded corpus, local files or the hub."""
    input:
        files=ancient(local_data),
        script=script_of("prepare_data"),
        library=data_library,
    output:
        train="results/{study}/data/{task}/train.parquet",
        validation="results/{study}/data/{task}/validation.parquet",
        test="results/{study}/data/{task}/test.parquet",
        info="results/{study}/data/{task}/dataset_info.json",
    params:
        spec=task_spec,
        seed=STUDY["seed"],
        contents=local_data_contents,
    log:
        "results/{study}/logs/prepare_data/{task}.log",
    benchmark:
        "results/{study}/benchmarks/prepare_data/{task}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/prepare_data.py"

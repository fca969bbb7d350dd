"""Metrics: a recovered variant and a test split to results/{study}/metrics/{variant}/{replicate}/{metric}.json.

The manifest of a checkpoint and the dataset_info.json of a task stand for them as inputs: they hold the hashes, and
scripts check these.
"""


rule measure_parameters:
    """Count parameters, non-zero parameters, bytes and FLOPs."""
    input:
        checkpoint=measured_manifest("parameters"),
        script=script_of("measure_parameters"),
        library=library_of("measure_parameters"),
    output:
        record="results/{study}/metrics/{variant}/{replicate}/parameters.json",
    params:
        settings=metric_settings("parameters"),
        statistics=STUDY["statistics"],
        seed=STUDY["seed"],
        device="cpu",  # it counts; no GPU has to be waited for
    log:
        "results/{study}/logs/measure_parameters/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/benchmarks/measure_parameters/{variant}_{replicate}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/measure_parameters.py"


rule measure_perplexity:
    """Perplexity of the test split before and after recovery."""
    input:
        checkpoint=measured_manifest("perplexity"),
        built=built_manifest,
        data="results/{study}/data/language_modeling/dataset_info.json",
        script=script_of("measure_perplexity"),
        library=variant_library("measure_perplexity"),
    output:
        record="results/{study}/metrics/{variant}/{replicate}/perplexity.json",
        scores="results/{study}/metrics/{variant}/{replicate}/perplexity.parquet",
    params:
        settings=metric_settings("perplexity"),
        statistics=STUDY["statistics"],
        seed=STUDY["seed"],
        device=STUDY["device"],
    log:
        "results/{study}/logs/measure_perplexity/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/benchmarks/measure_perplexity/{variant}_{replicate}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    resources:
        gpu=wants_gpu,
    script:
        "../workflow/scripts/measure_perplexity.py"


rule measure_latency:
    """Latency beside the baseline; takes every core, so that nothing else of the workflow runs meanwhile."""
    input:
        checkpoint=measured_manifest("latency"),
        baseline=baseline_manifest,
        data="results/{study}/data/language_modeling/dataset_info.json",
        script=script_of("measure_latency"),
        library=variant_library("measure_latency"),
    output:
        record="results/{study}/metrics/{variant}/{replicate}/latency.json",
        scores="results/{study}/metrics/{variant}/{replicate}/latency.parquet",
    params:
        settings=metric_settings("latency"),
        statistics=STUDY["statistics"],
        seed=STUDY["seed"],
        device=STUDY["device"],
    log:
        "results/{study}/logs/measure_latency/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/benchmarks/measure_latency/{variant}_{replicate}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: all_cores
    priority: -1
    resources:
        gpu=wants_gpu,
    script:
        "../workflow/scripts/measure_latency.py"


rule measure_sentiment:
    """Accuracy after fine-tuning on reviews."""
    input:
        checkpoint=measured_manifest("sentiment"),
        notes=build_notes,
        data="results/{study}/data/sentiment/dataset_info.json",
        script=script_of("measure_sentiment"),
        library=variant_library("measure_sentiment"),
    output:
        record="results/{study}/metrics/{variant}/{replicate}/sentiment.json",
        scores="results/{study}/metrics/{variant}/{replicate}/sentiment.parquet",
    params:
        settings=metric_settings("sentiment"),
        statistics=STUDY["statistics"],
        seed=STUDY["seed"],
        device=STUDY["device"],
    log:
        "results/{study}/logs/measure_sentiment/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/benchmarks/measure_sentiment/{variant}_{replicate}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    resources:
        gpu=wants_gpu,
    script:
        "../workflow/scripts/measure_sentiment.py"


rule measure_summarization:
    """ROUGE of zero-shot summaries."""
    input:
        checkpoint=measured_manifest("summarization"),
        data="results/{study}/data/summarization/dataset_info.json",
        script=script_of("measure_summarization"),
        library=variant_library("measure_summarization", "metrics/rouge.py"),
    output:
        record="results/{study}/metrics/{variant}/{replicate}/summarization.json",
        scores="results/{study}/metrics/{variant}/{replicate}/summarization.parquet",
    params:
        settings=metric_settings("summarization"),
        statistics=STUDY["statistics"],
        seed=STUDY["seed"],
        device=STUDY["device"],
    log:
        "results/{study}/logs/measure_summarization/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/benchmarks/measure_summarization/{variant}_{replicate}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    resources:
        gpu=wants_gpu,
    script:
        "../workflow/scripts/measure_summarization.py"

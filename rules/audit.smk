"""Audit: a sound study with some of the published artefacts on, to results/{study}/audit/.

A scenario's files lie under results/{study}/audit/{scenario}/ as the sound study's lie under results/{study}/. A stage whose
settings another scenario has too is made once, there.
"""


use rule align_layers as audit_align_layers with:
    output:
        permutations="results/{study}/audit/{scenario}/alignment/permutations.safetensors",
        similarity="results/{study}/audit/{scenario}/alignment/similarity.csv",
    log:
        "results/{study}/audit/{scenario}/logs/align_layers/alignment.log",
    benchmark:
        "results/{study}/audit/{scenario}/benchmarks/align_layers/alignment.tsv"


use rule collect_moments as audit_collect_moments with:
    output:
        moments="results/{study}/audit/{scenario}/alignment/moments.safetensors",
    log:
        "results/{study}/audit/{scenario}/logs/collect_moments/moments.log",
    benchmark:
        "results/{study}/audit/{scenario}/benchmarks/collect_moments/moments.tsv"


use rule build_variant as audit_build_variant with:
    output:
        model="results/{study}/audit/{scenario}/variants/{variant}/built/model.safetensors",
        config="results/{study}/audit/{scenario}/variants/{variant}/built/config.json",
        notes="results/{study}/audit/{scenario}/variants/{variant}/built/build.json",
        manifest="results/{study}/audit/{scenario}/variants/{variant}/built/manifest.json",
    log:
        "results/{study}/audit/{scenario}/logs/build_variant/{variant}.log",
    benchmark:
        "results/{study}/audit/{scenario}/benchmarks/build_variant/{variant}.tsv"


use rule recover_variant as audit_recover_variant with:
    output:
        model="results/{study}/audit/{scenario}/variants/{variant}/recovered/{replicate}/model.safetensors",
        config="results/{study}/audit/{scenario}/variants/{variant}/recovered/{replicate}/config.json",
        manifest="results/{study}/audit/{scenario}/variants/{variant}/recovered/{replicate}/manifest.json",
    log:
        "results/{study}/audit/{scenario}/logs/recover_variant/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/audit/{scenario}/benchmarks/recover_variant/{variant}_{replicate}.tsv"


use rule measure_perplexity as audit_measure_perplexity with:
    output:
        record="results/{study}/audit/{scenario}/metrics/{variant}/{replicate}/perplexity.json",
        scores="results/{study}/audit/{scenario}/metrics/{variant}/{replicate}/perplexity.parquet",
    log:
        "results/{study}/audit/{scenario}/logs/measure_perplexity/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/audit/{scenario}/benchmarks/measure_perplexity/{variant}_{replicate}.tsv"


use rule measure_latency as audit_measure_latency with:
    output:
        record="results/{study}/audit/{scenario}/metrics/{variant}/{replicate}/latency.json",
        scores="results/{study}/audit/{scenario}/metrics/{variant}/{replicate}/latency.parquet",
    log:
        "results/{study}/audit/{scenario}/logs/measure_latency/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/audit/{scenario}/benchmarks/measure_latency/{variant}_{replicate}.tsv"


use rule measure_sentiment as audit_measure_sentiment with:
    output:
        record="results/{study}/audit/{scenario}/metrics/{variant}/{replicate}/sentiment.json",
        scores="results/{study}/audit/{scenario}/metrics/{variant}/{replicate}/sentiment.parquet",
    log:
        "results/{study}/audit/{scenario}/logs/measure_sentiment/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/audit/{scenario}/benchmarks/measure_sentiment/{variant}_{replicate}.tsv"


use rule measure_summarization as audit_measure_summarization with:
    output:
        record="results/{study}/audit/{scenario}/metrics/{variant}/{replicate}/summarization.json",
        scores="results/{study}/audit/{scenario}/metrics/{variant}/{replicate}/summarization.parquet",
    log:
        "results/{study}/audit/{scenario}/logs/measure_summarization/{variant}_{replicate}.log",
    benchmark:
        "results/{study}/audit/{scenario}/benchmarks/measure_summarization/{variant}_{replicate}.tsv"


rule render_audit:
    """What each published artefact does to the figures, as a table and a page."""
    input:
        records=audit_records,
        sizes=[target(f"metrics/{variant}/0/parameters.json") for variant in AUDIT.variants],
        published=PUBLISHED,
        templates=[relative(ROOT / "report" / "templates" / name) for name in ("audit.html.j2", "_style.css.j2")],
        script=script_of("render_audit"),
        library=library_of("render_audit"),
    output:
        page=report(
            "results/{study}/audit/index.html",
            caption="../report/captions/audit.rst",
            category="Audit",
            labels={"page": "Audit of the published figures"},
        ),
        table=report(
            "results/{study}/audit/effects.csv",
            caption="../report/captions/audit.rst",
            category="Audit",
            labels={"page": "Effects, every digit"},
        ),
    params:
        study=STUDY_FACTS,
        cells=AUDIT_CELLS,
        origins=AUDIT_KEYS,
        facts=AUDIT.facts(),
        settings=AUDIT.differences(),
        links={"report": target("report/index.html"), "table": target("audit/effects.csv")},
    log:
        "results/{study}/logs/render_audit/audit.log",
    benchmark:
        "results/{study}/benchmarks/render_audit/audit.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/render_audit.py"


rule audit:
    """The audit's page; `all` does not ask for it."""
    input:
        audit_page,

"""Report: all records to results/{study}/tables/*.csv, figures/*.svg, report/index.html and provenance.json."""


rule tabulate:
    """One table of a metric: our figures with their intervals, the published ones and what needs no model beside them."""
    input:
        records=records_of,
        floors=table_floors,
        published=PUBLISHED,
        script=script_of("tabulate"),
        library=library_of("tabulate"),
    output:
        table=report(
            "results/{study}/tables/{metric}.csv",
            caption="../report/captions/table.rst",
            category="Tables",
            labels={"metric": "{metric}"},
        ),
        replicates="results/{study}/tables/replicates/{metric}.csv",
    params:
        variants=VARIANT_ROWS,
    log:
        "results/{study}/logs/tabulate/{metric}.log",
    benchmark:
        "results/{study}/benchmarks/tabulate/{metric}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/tabulate.py"


rule compare_variants:
    """Every variant against the baseline and the best floor, item by item; questions and published claims likewise."""
    input:
        records=all_records,
        floors=[record for metric in METRICS for record in floors_of(metric)],
        claims=CLAIMS,
        script=script_of("compare_variants"),
        library=library_of("compare_variants"),
    output:
        table=report(
            "results/{study}/tables/comparisons.csv",
            caption="../report/captions/comparisons.rst",
            category="Tables",
            labels={"metric": "comparisons"},
        ),
        questions=report(
            "results/{study}/tables/questions.csv",
            caption="../report/captions/questions.rst",
            category="Tables",
            labels={"metric": "questions"},
        ),
        claims="results/{study}/tables/claims.json",
    params:
        variants=VARIANT_ROWS,
        questions=STUDY["questions"],
        statistics=STUDY["statistics"],
        seed=STUDY["seed"],
        comparable=STUDY["comparable"],
    log:
        "results/{study}/logs/compare_variants/comparisons.log",
    benchmark:
        "results/{study}/benchmarks/compare_variants/comparisons.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/compare_variants.py"


rule plot_figure:
    """One figure from the tables."""
    input:
        tables=expand("results/{{study}}/tables/{metric}.csv", metric=METRICS),
        dataset_infos=infos_of(TASKS),
        script=script_of("plot_figure"),
        library=library_of("plot_figure"),
    output:
        figure=report(
            "results/{study}/figures/{figure}.svg",
            caption="../report/captions/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/{study}/logs/plot_figure/{figure}.log",
    benchmark:
        "results/{study}/benchmarks/plot_figure/{figure}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/plot_figure.py"


rule render_report:
    """The report as one page."""
    input:
        tables=expand("results/{{study}}/tables/{metric}.csv", metric=METRICS),
        figures=expand("results/{{study}}/figures/{figure}.svg", figure=FIGURES),
        comparisons="results/{study}/tables/comparisons.csv",
        questions="results/{study}/tables/questions.csv",
        claims="results/{study}/tables/claims.json",
        gates=GATES,
        records=all_records,
        floors=[record for metric in METRICS for record in floors_of(metric)],
        published=PUBLISHED,
        dataset_infos=infos_of(TASKS),
        templates=report_templates(),
        script=script_of("render_report"),
        library=library_of("render_report"),
    output:
        report=report(
            "results/{study}/report/index.html",
            caption="../report/captions/report.rst",
            category="Report",
            labels={"page": "The whole study"},
        ),
        provenance=report(
            "results/{study}/provenance.json",
            caption="../report/captions/provenance.rst",
            category="Report",
            labels={"page": "Provenance"},
        ),
    params:
        study=STUDY_FACTS,
        audit=AUDIT_LINK,
    log:
        "results/{study}/logs/render_report/report.log",
    benchmark:
        "results/{study}/benchmarks/render_report/report.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/render_report.py"

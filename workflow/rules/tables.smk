"""Tables, figures, leaderboard and report, from the records alone."""


def table_names():
    """The tables that the experiment asks for."""
    return registry.names("tables") if EXPERIMENT.tables == "all" else EXPERIMENT.tables


rule tables:
    input:
        records=records_of("teacher", "downstream", "export", "benchmark"),
    output:
        report=report(f"{TABLES}/report.html", caption="../report/report.rst", category="Report"),
        tables=report(
            expand(f"{TABLES}/{{table}}.csv", table=table_names()), caption="../report/tables.rst", category="Tables"
        ),
    log:
        f"{LOGS}/tables.log",
    conda:
        "../envs/obert.yaml"
    threads: 1
    resources:
        runtime=30,
        mem_mb=2000,
    params:
        config=CONFIG,
        experiment=EXPERIMENT.model_dump_json(include={"name", "description", "tables"}),
        code=code_hash("tables", tables=table_names()),
    shell:
        "python -m obert tables --config {params.config} > {log} 2>&1"

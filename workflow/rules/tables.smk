"""Tables, figures, leaderboard and report, from the records alone."""


rule tables:
    input:
        records=RECORDS,
        sweeps=[(folders.sweep_folder(name) / "trials.csv").as_posix() for name in EXPERIMENT.sweeps],
        published="configs/published.yaml",
    output:
        report=report(f"{TABLES}/report.html", caption="../report/report.rst", category="Report"),
        tables=report(
            expand(f"{TABLES}/{{table}}.csv", table=TABLE_NAMES), caption="../report/tables.rst", category="Tables"
        ),
    log:
        f"{LOGS}/tables.log",
    # Before `track`, which a tracking server that is down lets fail.
    priority: 1
    conda:
        "../envs/obert.yaml"
    threads: 1
    resources:
        runtime=30,
        mem_mb=2000,
    params:
        config=CONFIG,
        experiment=EXPERIMENT.model_dump_json(include={"name", "description", "tables"}),
        templates=[file_hash(path) for path in sorted((PACKAGE / "report" / "templates").iterdir())],
        code=code_hash(commands="tables", tables=TABLE_NAMES),
    shell:
        "python -m obert tables --config {params.config:q} > {log} 2>&1"

"""The MLflow mirror of the records."""


rule track:
    input:
        records=RECORDS,
    output:
        done=touch(f"{LOGS}/tracking_synchronized"),
    log:
        f"{LOGS}/track.log",
    conda:
        "../envs/obert.yaml"
    threads: 1
    resources:
        runtime=60,
        mem_mb=2000,
    params:
        config=CONFIG,
        uri=masked(EXPERIMENT.tracking_uri),  # Snakemake keeps parameters in a file
        code=code_hash(commands="track"),
    shell:
        "python -m obert track --config {params.config:q} > {log} 2>&1"

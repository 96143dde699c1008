"""CPU timing: takes every core, so it runs alone."""


rule benchmark:
    input:
        model=source_records("benchmark"),
        dense=lambda wildcards: record_of(plan.teacher_key(EXPERIMENT, wildcards.task).at("export")),
        environments=ENVIRONMENTS,
    output:
        record=ensure(f"{RUNS}/benchmark/{RUN}/metrics.json", non_empty=True),
        latencies=f"{RUNS}/benchmark/{RUN}/latencies.json",
    log:
        f"{LOGS}/benchmark/{RUN}.log",
    benchmark:
        f"{TIMES}/benchmark/{RUN}.jsonl"
    conda:
        "../envs/obert.yaml"
    threads: CORES
    resources:
        gpu=0,
        # Two workers of DeepSparse take 3 GB while they compile models of BERT-base size.
        mem_mb=5000,
        runtime=60,
    params:
        config=CONFIG,
        run=arguments_of("benchmark"),
        specification=specification_of("benchmark"),
        code=lambda wildcards: code_hash("benchmark", engines=EXPERIMENT.benchmark.engines, tasks=wildcards.task),
    shell:
        "python -m obert benchmark --config {params.config} {params.run} > {log} 2>&1"

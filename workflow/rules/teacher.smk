"""Dense fine-tuning of each task's teacher."""


rule teacher:
    output:
        record=ensure(f"{RUNS}/teacher/{RUN}/metrics.json", non_empty=True),
        model=directory(f"{RUNS}/teacher/{RUN}/model"),
    log:
        f"{LOGS}/teacher/{RUN}.log",
    benchmark:
        f"{TIMES}/teacher/{RUN}.jsonl"
    conda:
        "../envs/obert.yaml"
    threads: EXPERIMENT.threads
    resources:
        gpu=min(GPUS, 1),
        mem_mb=3000,
        runtime=600,
    params:
        config=CONFIG,
        run=arguments_of("teacher"),
        specification=specification_of("teacher"),
        code=lambda wildcards: code_hash("teacher", tasks=wildcards.task),
    shell:
        "python -m obert teacher --config {params.config} {params.run} > {log} 2>&1"

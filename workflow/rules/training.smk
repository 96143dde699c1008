"""The stages that end with a trained model: one rule each, alike but for what it starts from and the code it runs."""

TRAINING = ("upstream_teacher", "upstream", "teacher", "transfer", "downstream", "quantize")


for stage in TRAINING:

    rule:
        name:
            stage
        input:
            sources=source_records(stage),
        output:
            record=ensure(f"{RUNS}/{stage}/{RUN}/metrics.json", non_empty=True),
            model=directory(f"{RUNS}/{stage}/{RUN}/model"),
        log:
            f"{LOGS}/{stage}/{RUN}.log",
        benchmark:
            f"{TIMES}/{stage}/{RUN}.jsonl"
        # What others wait for goes first, or the longest chain is what all wait for in the end.
        priority: len(TRAINING) - TRAINING.index(stage)
        conda:
            "../envs/obert.yaml"
        threads: EXPERIMENT.threads
        resources:
            gpu=min(GPUS, 1),
            mem_mb=3000,
            runtime=1440,
        params:
            config=CONFIG,
            stage=stage,
            run=arguments_of(stage),
            specification=specification_of(stage),
            code=code_of(stage),
        shell:
            "python -m obert {params.stage} --config {params.config} {params.run} > {log} 2>&1"

"""The runs: a rule for each stage, alike but for what the stage says of itself."""

for position, stage in enumerate(STAGES):

    rule:
        name:
            stage.name
        input:
            sources=source_records(stage.name),
            environments=ENVIRONMENTS if stage.exclusive else [],
        output:
            **outputs_of(stage),
        log:
            f"{LOGS}/{stage.name}/{RUN}.log",
        benchmark:
            f"{TIMES}/{stage.name}/{RUN}.jsonl"
        # What others wait for goes first, or the longest chain is what all wait for in the end.
        priority: len(STAGES) - position
        conda:
            "../envs/obert.yaml"
        # What measures time takes every core, so it runs alone.
        threads: CORES if stage.exclusive else EXPERIMENT.threads if stage.trains else 1
        resources:
            gpu=min(GPUS, 1) if stage.trains else 0,
            mem_mb=stage.memory_mb,
            runtime=stage.minutes,
        params:
            config=CONFIG,
            stage=stage.name,
            run=arguments_of(stage.name),
            specification=specification_of(stage.name),
            code=code_of(stage.name),
        # The record is written last, and Snakemake has removed that of any run before: where it is, the run is complete,
        # whatever ended the process after it. A failed job would lose the model.
        shell:
            "python -m obert {params.stage} --config {params.config:q} {params.run} > {log} 2>&1"
            " || {{ test -s {output.record} && echo 'The run is complete, though not all after it: see {log}' >&2; }}"

"""The stages of the DAG, one file each. Each has `run(...)` and works from the command line without Snakemake."""

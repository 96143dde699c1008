"""Commands besides the stages: prepare, check, sweeps, tables, tracking."""

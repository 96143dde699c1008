"""Training with the Hugging Face Trainer: features, schedules, distillation, gradual pruning, checkpoints."""

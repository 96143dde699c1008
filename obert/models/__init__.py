"""Encoders with a task's head."""

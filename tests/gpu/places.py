"""The project's folder, and what is carried to a machine without a network."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ROOT / "results" / "gpu" / "carried"

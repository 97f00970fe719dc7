"""Puts the API server's test world within reach."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "apiserver"))

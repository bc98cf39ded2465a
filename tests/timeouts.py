"""How long a test waits for what has to come: a limit for failures alone, on the slowest and busiest machine."""

from __future__ import annotations

PATIENCE_S = 600.0

"""How hypothesis looks for counterexamples here: the same ones each time, however slow the machine is."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A failure is to be the change's, not the day's; `make fuzz` goes on searching.
settings.register_profile("project", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

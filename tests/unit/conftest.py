"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import settings

# No test has a deadline of 200 ms for each example: a busy machine is not a fault of the code.
settings.register_profile("provision", deadline=None)
settings.load_profile("provision")

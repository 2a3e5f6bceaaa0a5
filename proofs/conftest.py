"""Profiles of Hypothesis, chosen by HYPOTHESIS_PROFILE; none keeps a database of examples.

``default`` is the same on every run; ``deep`` looks at DEEP_EXAMPLES new examples of each proof
(docs/proofs.md says how long that takes);
``faults`` is the default without shrinking, to see quickly whether a planted fault is found.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

# The models beside the proofs are imported by their names.
sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile(
    "always",
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("default", settings.get_profile("always"), derandomize=True)
settings.register_profile(
    "faults", settings.get_profile("default"), phases=(Phase.explicit, Phase.generate)
)
settings.register_profile(
    "deep",
    settings.get_profile("always"),
    max_examples=int(os.environ.get("DEEP_EXAMPLES", "20000")),
    stateful_step_count=100,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

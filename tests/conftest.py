"""Settings for all tests: property tests are judged by what they find, not by a busy machine."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "lichen", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("lichen")

"""What holds for every test: generated cases are bounded in number, never in time, for a machine may stand still."""

from hypothesis import HealthCheck, settings

settings.register_profile("millrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("millrace")

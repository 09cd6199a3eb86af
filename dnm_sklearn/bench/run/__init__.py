"""Running detectors and baselines on a suite."""

"""Thresholds and conformal guarantees."""

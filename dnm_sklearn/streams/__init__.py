"""Test-time state of the adaptive methods: numpy in and out, one file per method."""

"""The ``dnm-bench`` command, one file per sub-command."""

"""The ``dnm-bench`` command: detectors and baselines on a suite, one record a run, tables from records.

Importing this package imports neither torch nor PyOD; :mod:`dnm_sklearn.bench.cli.main` stays as
cheap.
"""

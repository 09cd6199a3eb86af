"""The ``dnm-bench`` command: detectors and baselines on a suite, records of runs, and tables.

Importing this package imports neither torch nor PyOD; :mod:`dnm_sklearn.bench.cli.main` stays as
cheap.
"""

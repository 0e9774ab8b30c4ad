"""The field's tables, regenerated: suites of methods and baselines, measured side by side.

:mod:`~dpsd.benchmarks.methods` says what a method is, :mod:`~dpsd.benchmarks.baselines` holds those
that dpsd is compared with, :mod:`~dpsd.benchmarks.suites` the tables, and ``dpsd bench`` runs them.
"""

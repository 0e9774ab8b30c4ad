"""The suites of ``dpsd bench``: what each table measures.

Each module that a suite is named after makes the suite's rows, and
:mod:`~dpsd.benchmarks.suites.registry` has all of them by name.
"""

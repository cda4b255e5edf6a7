"""
The benchmarks: what `touchstone bench` measures, one file per benchmark, over the product's own code.

No part of the worker imports it. Commands and options are in ``worker/cli/bench.py`` and ``worker/cli/bench_*.py``.
"""

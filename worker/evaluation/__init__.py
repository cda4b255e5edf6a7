"""
Measuring a detector on labelled images: splits, metrics, robustness, peers and the report.
"""

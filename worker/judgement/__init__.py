"""
One judgement from many heads: fusion, calibration, guarantee, attribution; and how it lies in a bank release.
"""

"""
Learning a judgement from a bank: folds, heads, fusion, calibration. Nothing here runs in the worker.
"""

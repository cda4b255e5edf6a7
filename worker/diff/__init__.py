"""
Two sets of verdicts on the same events, compared.
"""

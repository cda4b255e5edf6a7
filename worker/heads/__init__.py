"""
The heads: each reads frozen features against a bank of references and gives one score per picture. Numbers only.

How a head's parameters are learnt is ``worker/fitting``; how heads become one judgement is ``worker/judgement``.
"""

"""
What ``touchstone doctor`` looks at, one check after the other; nothing here changes anything anywhere.
"""

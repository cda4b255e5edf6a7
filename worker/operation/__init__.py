"""
What surrounds the judging in a live worker: each file builds one such thing from the settings, for ``worker.app``.
"""

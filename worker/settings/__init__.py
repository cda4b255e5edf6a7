"""
The one frozen settings tree, and how it is put together from file, overlay, environment and ``--set``.
"""

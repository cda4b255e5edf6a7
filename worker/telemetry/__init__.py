"""
What the worker says of itself: its log and its counters, and what may be said at all.
"""

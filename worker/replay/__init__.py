"""
History judged again by the stages of the live worker: which events, what is known of them, and where it goes.
"""

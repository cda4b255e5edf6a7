"""
The edges: each client library is touched in one of these modules, and nowhere else.

An adapter implements a port of ``worker/ports.py``; none of them knows another stage, the flow, or the root.
"""

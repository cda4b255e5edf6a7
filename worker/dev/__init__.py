"""
Real servers for a developer, the tests and the demo: Apache Kafka and Redis from Python packages alone.

Start with ``servers.py``. Nothing of the worker's main job imports from here, and nothing here runs in production.
"""

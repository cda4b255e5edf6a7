"""
The contract: what Touchstone reads from Kafka and what it writes there.

Depends on pydantic only, and is readable without the worker. The JSON Schemas and the AsyncAPI document under
``schemas/json`` are generated from these models by ``touchstone schemas export``.
"""

SCHEMA_VERSION = "1.1"
"""Version of the contract: the minor grows with compatible additions, the major with a new event type."""

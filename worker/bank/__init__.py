"""
Banks of labelled references: their directory on disk, building, adding, inspecting, verifying, fitting an encoder.

Searching one is the adapters' affair (``worker.adapters.faiss_bank``); no index is ever stored.
"""

"""
The way of one upload, one module per stage; pure, but for the ports they are handed.

    intake ─▶ fetch ─▶ decode (colour, preprocess, sniff) ─▶ match ─▶ decide (vote) ─▶ report ─▶ serialise

Where an embedding is known already, decode is skipped; encoding itself is the encoder's, behind its port. What runs
side by side, and in which order results leave, is ``worker/flow``.
"""

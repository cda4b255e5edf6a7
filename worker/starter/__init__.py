"""
The starter encoder and bank that ship with Touchstone, and what made them: ``python -m worker.starter.make``.

A newcomer's default where no other weights are configured. What it can and cannot do: MODEL_CARD.md beside this file.
"""

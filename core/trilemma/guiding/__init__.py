"""Guidances together, and how a step uses them."""

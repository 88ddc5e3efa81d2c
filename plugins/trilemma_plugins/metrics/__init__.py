"""Metrics on a feature network: Fréchet distance, precision and recall, class agreement."""

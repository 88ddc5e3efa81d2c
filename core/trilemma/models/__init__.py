"""Trained models: reading, building, speeding them up."""

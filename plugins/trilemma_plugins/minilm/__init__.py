"""The encoder all-MiniLM-L6-v2."""

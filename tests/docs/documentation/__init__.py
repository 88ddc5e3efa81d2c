"""The documentation, read as its readers do: every block run, every path and link followed."""

"""The interfaces that plugins fill in."""

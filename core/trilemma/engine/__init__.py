"""From a request to its samples."""

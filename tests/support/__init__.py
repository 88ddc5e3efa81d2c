"""What several test folders lean on."""

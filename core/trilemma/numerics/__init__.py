"""Mathematics that samplers, processes and noise share."""

"""Variational diffusion models: a noise schedule that is learned with the bound."""

"""Score-based generative modelling in latent space: encoder, decoder and score prior, trained together."""

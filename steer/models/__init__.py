"""The latent model: a base, its adapters, its layout, and the files that hold it."""

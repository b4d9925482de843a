"""Training of base models and latent models, over `transformers.Trainer`. Imported on demand only.

`steer` itself does not need it.
"""

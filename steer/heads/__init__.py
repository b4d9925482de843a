"""Small networks beside the base: between states and latents, how near, what next, which is better."""

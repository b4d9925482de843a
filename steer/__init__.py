"""Steer base language models through latents."""

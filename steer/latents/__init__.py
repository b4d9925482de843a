"""Arithmetic on latents: pulls, mixes, schedules, waypoints. Tensors in, tensors out; knows no model."""

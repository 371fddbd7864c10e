"""Arrays in, arrays out: spherical harmonics, layers, network, rollout and training step, in JAX."""

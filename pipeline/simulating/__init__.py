"""A simulated atmosphere."""

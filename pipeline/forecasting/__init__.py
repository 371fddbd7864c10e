"""Long rollouts from initial states, perturbed or not, written while the next block computes."""

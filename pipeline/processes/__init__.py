"""The processes of a training: who takes part, on this machine or on a cluster, and what starts them there."""

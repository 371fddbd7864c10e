"""The Beam jobs of a climatology, and what it says of given times."""

"""Commands that work on runs: the whole chain, single stages, and trainings on other devices."""

"""The parts of scoring: stores that fit together, blocks of work, tallies, results, spectra, the official package."""

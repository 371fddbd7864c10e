"""The runs of a folder in a browser: an index, the state of runs at work, reports, and comparisons of them."""

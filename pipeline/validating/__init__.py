"""What a source is found to be: the scan of every value, and the record of it."""

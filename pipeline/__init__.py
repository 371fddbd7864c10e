"""One module a stage: read a store, call `transforms` or `model`, publish a store."""

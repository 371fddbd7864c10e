"""What runs after what: one table of stages and the runner that walks it on this machine."""

"""The training loop and what it needs: windows, loader, checkpoints, stopping, the record, held-out forecasts."""

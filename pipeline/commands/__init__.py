"""Commands that work on single stores, without a run: looking, preparing data, forecasts and their scores."""

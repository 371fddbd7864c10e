"""Data in, data out: grids, regridding, statistics, climatology, solar radiation and metrics, on numpy and xarray."""

"""Raw data at the door: zarr, netCDF and GRIB made canonical, on the levels asked for, with derived variables."""

"""Zarr stores and their objects: opened lazily in the orientation of the house, and written object by object."""

"""The work of the regridding job, and the ways to bring fields to another grid."""

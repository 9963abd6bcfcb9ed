"""Many cases at once: columns, frames, grids and files of cases, on all cores or on a cluster engine."""

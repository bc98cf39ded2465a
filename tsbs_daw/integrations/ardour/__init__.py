"""Installation of the scripts in Ardour."""

"""The report: one HTML file that works offline, built from a run folder alone."""

"""Tables of a result as DataFrames of their own."""

from scratio.get._tables import calibration, diagnostics, neighborhoods, regions, samples, table

__all__ = ["calibration", "diagnostics", "neighborhoods", "regions", "samples", "table"]

"""What finished runs say: measured responses, comparisons, tables, plots, the report, listening. Trains nothing."""

"""What finished runs say: measured responses, comparisons, tables, plots, the report, listening. Trains nothing.

`run_cutoffs` and `finished_runs` read what runs left, `comparison` and `significance` compare them, `tables`,
`*_plots` and `report` show it; `measured_response` and `listening` put sound through the trained network.
"""

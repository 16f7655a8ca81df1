"""What a classifier is (frontend, trunk, heads, files), what it costs and what it keeps (cut-offs). Knows no data."""

"""Results as tables: CSV, JSON Lines and Parquet, for `fluxdrop export` and results.csv."""

"""Agent that puts scores, trends and outliers into words."""

"""What the constraint is: measures, sets and projections (numpy and array-API only)."""

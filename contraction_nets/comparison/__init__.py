"""Methods side by side, on the same problems at the same accuracy."""

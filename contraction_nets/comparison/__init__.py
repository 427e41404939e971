"""Methods side by side: projections, certificates, iterations and sets, as rows of numbers."""

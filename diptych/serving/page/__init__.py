"""The search page: what its address says, what it shows, and what answers it."""

"""The command lines (DESIGN section 5)."""

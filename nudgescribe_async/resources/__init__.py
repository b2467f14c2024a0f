"""What is written by hand on top of the generated endpoints."""

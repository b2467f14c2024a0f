"""What is measured, by name. Each is a function that has the crew do the work, and says what came of it."""

"""When to call Tedee, and the results of the last calls."""

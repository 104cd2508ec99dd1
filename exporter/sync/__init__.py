"""When to call Tedee, and what came back last."""

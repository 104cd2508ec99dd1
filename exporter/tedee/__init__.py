"""The Tedee cloud API: one HTTP call each, wire to typed values, and every way a call can end."""

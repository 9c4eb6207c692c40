"""Data: where texts come from, their symbols, and the streams that training reads."""

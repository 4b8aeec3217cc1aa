"""Results that calls return to users: each has its data, and draws itself as text and HTML."""

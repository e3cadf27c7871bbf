"""How processes are started and end."""

"""What goes to another process by value."""

"""What other packages and older interpreters expect, and annotations that cost nothing."""

"""What is behind `maniple.executor`."""

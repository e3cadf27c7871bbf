"""`python -m maniple`: runs a program with this package in the place of `multiprocessing`."""

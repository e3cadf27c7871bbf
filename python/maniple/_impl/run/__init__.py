"""`python -m maniple`: a program whose `multiprocessing` is this package."""

"""What is behind the public modules, by subject.  Nothing here is for use by name."""

#: the name of the package
PACKAGE = __name__.rpartition(".")[0]

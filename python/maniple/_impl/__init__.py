"""The implementation behind the public modules, in packages by subject.  Programs must not import it."""

#: the name of the package
PACKAGE = __name__.rpartition(".")[0]

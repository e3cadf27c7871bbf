"""Starts a process and a pool by a fork server that ends when it imports a module."""

import maniple


def main():
    maniple.set_start_method("forkserver")
    maniple.set_forkserver_preload(["ends_the_server"])
    for use in (lambda: maniple.Process(target=abs, args=(1,)).start(), lambda: maniple.Pool(2).map(abs, [1])):
        try:
            use()
        except Exception as error:
            print(f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ()))
        else:
            print("no error")


if __name__ == "__main__":
    main()

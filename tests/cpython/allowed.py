"""What may differ from the standard package, and why; additions need not be named here."""

_REDUCER = "through an object the standard one receives the reducer as its first argument, which it is not made for"

_NATIVE = "the step is native, so that an exception of a signal handler takes no result along; `next` has the parameter"

_HANDLE = "on Windows; an arena has no name there, and its reducer passes a handle"

# A path as `surface.py` writes it -> the reason.
ALLOWED: dict[str, str] = {
    "sharedctypes:template": "the source text of an implementation, and ours is another",
    "heap:Arena.__setstate__": _HANDLE,
    "pool:IMapIterator.__next__": _NATIVE,
    "pool:IMapUnorderedIterator.__next__": _NATIVE,
    "reduction:AbstractReducer.DupFd": _REDUCER,
    "reduction:AbstractReducer.dump": _REDUCER,
    "reduction:AbstractReducer.duplicate": _REDUCER,
    "reduction:AbstractReducer.recv_handle": _REDUCER,
    "reduction:AbstractReducer.recvfds": _REDUCER,
    "reduction:AbstractReducer.send_handle": _REDUCER,
    "reduction:AbstractReducer.sendfds": _REDUCER,
    "reduction:AbstractReducer.steal_handle": _REDUCER,
}

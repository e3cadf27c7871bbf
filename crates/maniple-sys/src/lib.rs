//! What an operating system must supply. This is the contract: all that the crates above may ask of a system, what each item promises, and
//! with which errors it answers. Nothing above this crate may assume which system it is; no other crate names one, or a library of one.
//!
//! A *backend* is a folder with these items: `linux/`, and `stub/`, which compiles everywhere and answers
//! `Unsupported`. `unix/` has what the systems of that family share. Words that are the same everywhere are in `terms.rs`, `exit.rs`,
//! `start.rs` and `handle.rs`. `tests/conformance` tests a backend against this text alone.
//!
//! Where nothing else is said, an error is the system's own `io::Error`; one for which [`is_shortage`] holds may be gone later. `Interrupted`
//! means that a signal handler has run. No call keeps a handle that it was lent.
//!
//! # Handles
//! | item | promise |
//! | --- | --- |
//! | `OwnedHandle` | closes what it has when it is dropped. `try_clone` makes another on the same (error: no handle left); `as_raw`, `into_raw` and the unsafe `from_raw` are for code that names it to another party |
//! | `BorrowedHandle` | another's; `try_clone_to_owned`, `as_raw`, the unsafe `borrow_raw` |
//! | `RawHandle`, `AtomicRawHandle` | a handle's number; the same for threads that share it |
//! | `AsHandle`, `FromHandle`, `IntoHandle`, `as_handle!` | conversions; on Unix everything with a descriptor has them |
//!
//! Handles made here are not inherited by programs that this process starts, and none has the number of a standard stream.
//!
//! ## `own`: handles that stay ours
//! | item | promise |
//! | --- | --- |
//! | `File` | what a handle leads to: `of` a handle, `and_len` with how many bytes there are, `with_len_and_names`, `at` a number (`None`: not open, or not known); `numbers` and `from_numbers` are its two parts, `mixed` is one number for both |
//! | `Own` | an owned handle that is used and closed only while it leads to what it was made for. `new`, `is_there`, `found` (error: it is not), `into_handle` |
//! | `not_there` | the error of a handle that leads to something else by now |
//! | `Lent` | a handle whose owner the compiler does not see (unsafe `new`); never closed |
//! | `above_stdio` | the same under a number that is no standard stream's (error: no handle left) |
//!
//! ## `atfork`: handles that forked children must not have
//! Systems without forks keep the handle and do nothing else.
//!
//! | item | promise |
//! | --- | --- |
//! | `making` | runs a piece of work that no fork falls into |
//! | `OnceLock` | a value that `get_or_init` makes at its first use, inside `making` |
//! | `Handlers` | three functions for each fork: before it, after it in the parent and in the child. `register` registers them once (error: no memory; the next call tries again) |
//! | `hold_forks` | has forks wait for `making`, for tables that a child must find whole (error: no memory) |
//! | `register`, `unregister` | from here on a handle is closed in forked children; no longer. `unregister` is false where it was not registered |
//! | `HubOnly` | an owned handle that is registered while it lives; in a forked child it is gone. `new`, `into_handle` (error: a child's copy) |
//! | `NotForChildren` | the same for another owner's handle: `new` |
//! | `hold_until_the_end` | keeps a handle open until this process ends |
//!
//! ## `epoch`: whether this process has forked
//! | item | promise |
//! | --- | --- |
//! | `count_forks` | begins to count (error: no memory) |
//! | `Epoch`, `Since` | `now` is a moment; `since` says whether this process has forked after it, or was born |
//!
//! # Shared memory
//! ## `memory`: without a name
//! | item | promise |
//! | --- | --- |
//! | `create` | `len` zeroed bytes, whose size stays. Gone with the last handle and mapping, however these end. Errors: `is_too_long`, a shortage |
//! | `is_fixed` | whether the size of memory from another process stays: only then it may be mapped |
//! | `len`, `read_at`, `read_all`, `write_at` | its size; copies out of it and into it (`UnexpectedEof`, `WriteZero` beyond the end) |
//! | `release` | frees whole pages, which read as zeros afterwards; a system that cannot says so |
//! | `duplicate`, `close_on_exec` | another handle on it; a handle from another process is not inherited by programs |
//! | `longest`, `is_narrow` | how long memory may be; whether addresses are limited |
//! | `is_too_long`, `too_long`, `is_scarce`, `out_of_memory` | errors: longer than allowed; no more mappings; no memory |
//! | `PAGES` | a multiple of every system's page size |
//! | `Mapping` | bytes of memory in this process: `new`, `at` an offset (whole pages), `joined` of several pieces; `start`, `len`, `is_empty`. Errors: `is_scarce` |
//! | `Share` | `All` see what is written, or `CopyOnWrite`: only this mapping |
//! | `keep_from_children`, `prepare`, `map_in` | hints; `prepare` says where there is no memory for the pages |
//!
//! ## `named`: under a name
//! | item | promise |
//! | --- | --- |
//! | `create`, `find`, `unlink` | new memory under a name (`AlreadyExists`); what has it (`NotFound`); the name goes, the memory stays while it is used |
//! | `leads_to` | whether a name still leads to the memory behind a handle |
//! | `open` | by the system's own flags and mode, which Python passes on |
//!
//! ## `plain`: this process's own
//! | item | promise |
//! | --- | --- |
//! | `Plain` | zeroed memory, in huge pages if there are any: `new`, `start`, `len`, `is_empty`; `forget` returns whole pages to the system, or does nothing |
//!
//! # Waiting and locking in shared memory
//! | item | promise |
//! | --- | --- |
//! | `futex::wait` | sleeps while a word holds a value, until any process calls `wake`; may return early. No error: `Woken` says why it ended |
//! | `futex::wake` | wakes up to so many |
//! | `mutex::Mutex` | a lock in shared memory: unsafe `init` in fresh memory, `try_lock`, `lock_within` a time, unsafe `unlock` by the holder |
//! | `mutex::Found` | `Taken` by another, `Ours`, or `Orphaned`: its holder died with it, which had the memory mapped to its end, and it is ours |
//! | `holder::identity`, `holder::Identity` | this process in words that others can check; zeros if they are unknown |
//! | `holder::is_gone` | whether such a process has certainly ended; false if that is unknown |
//!
//! # Streams
//! ## `stream`: bytes and handles
//! | item | promise |
//! | --- | --- |
//! | `pair`, `pipe`, `packet_pair` | two connected ends, for both directions; to read from and to write to; for packets |
//! | `kind`, `Kind`, `is_packets` | whether handles can be sent over it; whether it is for packets |
//! | `read`, `read_into`, `read_to_end`, `write`, `write_all` | wait; 0 is the end of the stream. All but `read_to_end` and `write_all` end with `Interrupted` |
//! | `read_with`, `write_with` | with handles: they go with the first byte, at most `MOST_HANDLES` |
//! | `read_now`, `write_now` | the same without waiting: `None` where there is nothing, or no room |
//! | `send_packet`, `peek_packet` | a packet as a whole or not at all (false: no room); the start of the next, which stays |
//! | `receive`, `Received`, `send`, `send_now` (of `socket`) | what is there; some, once there is room for the first byte |
//! | `take_cut` | whether handles that came were lost, for there was no number left |
//! | `set_blocking`, `shut`, `hang_up` | calls wait; close one direction; close both directions, for all holders of the socket |
//! | `mark`, `is_marked`, `is_peer_marked` | a mark on an end, which both ends see; a system may have none (error) |
//!
//! ## `standoff`: both ends full
//! | item | promise |
//! | --- | --- |
//! | `unread`, `Unread`, `Other` | what lies unreceived at both ends (`None`: nothing at one of them), and what is known of the other end |
//! | `Said`, `unsay` | says that this end waits, while it lives, or from `leave` to `unsay`; `new` fails where that cannot be said |
//!
//! ## `ready`: waiting for handles
//! | item | promise |
//! | --- | --- |
//! | `Interest` | in a handle being readable, finished or gone at its other end (`new`), or having room (`room`); `ready` afterwards |
//! | `wait` | waits for any of them: how many; 0 at the end of the time or after a signal handler. Any number of handles |
//! | `wait_for` | waits for one; false: look around, and come back |
//! | `Kick` | readable from `kick` to `clear`: by threads, or by processes that have it `from_handle` |
//!
//! ## `socket`: listening and connecting
//! | item | promise |
//! | --- | --- |
//! | `Place` | a path or a network address; `LONGEST_PATH` bytes at most |
//! | `own_name` | a name that goes with its listener, if there are such |
//! | `listen`, `accept`, `is_taken` | a listener; a client that waits (`None`: none), without waiting; whether a listener has taken this client, if that is known |
//! | `Dial` | `new`, `connect` (`TimedOut`, and may be called again; `Interrupted`), `into_handle` |
//! | `address`, `peer` | of this end; the other one, for messages |
//! | `send_at_once`, `keep_alive` | for network connections; nothing for others |
//! | `file` | what lies at a path (`None`: the place is none in the file system), to see whether it was replaced |
//! | `random` | unpredictable bytes |
//! | `socket_dir::SocketDir` | a folder that only this user can enter: `new`, `socket` (a path in it), `remove`. What killed processes left goes with the next |
//!
//! ## `wire`: the line between hub and worker
//! | item | promise |
//! | --- | --- |
//! | `Wire` | `pair`, `for_worker` (inside `making`), `from_handle`; `send` (`WouldBlock`: full) and `receive` never wait; `wait`, `is_hung_up` |
//! | `Note` | a number with its handles, the same with some of them lost, the end, or nothing. Notes that were sent arrive after the end is gone |
//! | `take` | receives even where this process has no number left for handles that are only passing |
//! | `MOST` | handles that one note carries |
//! | `out_of_handles`, `is_out_of_handles`, `is_crowded` | errors: no handle left here; too many on their way |
//!
//! ## `tap`: standard error on its way
//! | item | promise |
//! | --- | --- |
//! | `pair`, `redirect`, `drain` | two ends; one as this process's standard error; what is there (`None`: closed), without waiting |
//! | `forward`, `forward_until_closed` | to this process's own standard error; all that comes |
//! | `records`, `record`, `RECORD` | two ends for pieces of at most so many bytes, each whole; false: no room, or no reader |
//!
//! # Processes
//! | item of `process` | promise |
//! | --- | --- |
//! | `Start`, `Stdio`, `start` | a program with its arguments, environment, folder, streams and handles (under the same numbers), and no others. Default signals. Its number, and a handle that is readable from its end on |
//! | `Forked`, `fork` | (unsafe) a copy of this process |
//! | `has_handles`, `open` | whether there are handles on any process; one |
//! | `reserve_handle`, `open_child` | keeps room for a handle on a child that is about to start; the handle, for which it waits up to a second |
//! | `kill`, `terminate`, `end_by_number` | end it at once; request its end. A process that has ended is not affected |
//! | `reap`, `exit_told`, `Exit`, `Cause`, `cause_name` | how our child ended (`None`: it runs); how a child of another process did, if that is known. An exit is a code or a cause; both as Python numbers them |
//! | `claim` | (unsafe) a handle by the number that this process was given at its start |
//! | `close_number`, `put_in_place`, `set_variable` | (unsafe) close a number; make a handle a standard stream; change the environment |
//! | `nothing` | a handle that reads as empty and discards writes |
//! | `lifeline`, `hung_up`, `until_hung_up` | a pipe; whether its other end is gone; waits for that |
//! | `die_when_hung_up` | this process is killed when the other end closes, also while it is busy, as long as the returned handle is open; or an error |
//! | `maker::end_after`, `maker::runs` | this process is asked to end, then killed, after its maker; whether a process runs |
//! | `terminate_itself`, `die`, `leave` | asks this process to end; kills it; ends it without destructors |
//! | `worker_signals`, `program_signals`, `ignore_broken_pipes`, `take_name`, `privileged` | what signals do to a worker, and to a program; its name; whether its environment may not be trusted |
//! | `packet::pair`, `packet::send`, `packet::receive`, `packet::MOST_HANDLES` | a line for packets that waits: to a fork server |
//! | `image::image`, `image::Image`, `image::symbol` | where this program's code lies and which build it is; a function's name |
//!
//! # The rest
//! | item | promise |
//! | --- | --- |
//! | `quiet::spawn`, `quiet::Number` | a thread that is given no signals; whether the system still counts one (`own`, `is_there`) |
//! | `aside` | work in a thread with handles of its own, where this process has none left; an error where there is no such thing |
//! | `is_shortage`, `advice` | whether an error says that something ran out; what to do about it, for its reader |
//! | `clock::now` | nanoseconds that never go back, the same in every process |
//! | `cores`, `most_handles`, `process_id`, `is_first_thread` | of this process |
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod exit;
mod handle;
#[cfg(target_os = "linux")]
mod linux;
mod start;
// Compiled for tests everywhere: what it answers is tested.
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(unused_imports, dead_code))]
mod stub;
mod terms;
#[cfg(all(target_os = "linux", any(test, feature = "testing")))]
#[doc(hidden)]
pub mod testing;
#[cfg(unix)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub mod unix;

#[cfg(unix)]
#[doc(hidden)]
pub use handle::fd;
pub use handle::{AsHandle, AtomicRawHandle, BorrowedHandle, FromHandle, IntoHandle, OwnedHandle, RawHandle};
#[cfg(target_os = "linux")]
pub use linux::*;
#[cfg(not(target_os = "linux"))]
pub use stub::*;
#[cfg(unix)]
pub use unix::{atfork, epoch};

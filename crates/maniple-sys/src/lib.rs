//! What an operating system must supply. This is the contract: everything that the crates above may request from a
//! system, what each item promises, and which errors it returns. No crate above may assume which system it runs on; no
//! other crate names an operating system, or a library of one.
//!
//! A *backend* is a folder with these items: `linux/`, `macos/`, `windows/`, and `stub/`, which compiles everywhere and returns
//! `Unsupported`. `unix/` contains the code that the systems of that family share. The types that are the same
//! everywhere are in `terms.rs`, `exit.rs`, `start.rs` and `handle.rs`; `lacking/` has what several systems have nothing
//! to do for. `tests/conformance` tests a backend against this text alone.
//!
//! Unless stated otherwise, an error is the system's own `io::Error`. An error for which [`is_shortage`] is true may
//! disappear later. `Interrupted` means that a signal handler has run. No call keeps a handle that it was lent.
//!
//! # Handles
//! | item | promise |
//! | --- | --- |
//! | `OwnedHandle` | closes its object when it is dropped. `try_clone` makes another handle on the same object (error: no handle left); `as_raw`, `into_raw` and the unsafe `from_raw` are for code that passes the number to another party |
//! | `BorrowedHandle` | belongs to another owner; `try_clone_to_owned`, `as_raw`, the unsafe `borrow_raw` |
//! | `RawHandle`, `AtomicRawHandle` | a handle's number; a number that threads share |
//! | `AsHandle`, `FromHandle`, `IntoHandle`, `as_handle!` | conversions; on Unix everything with a descriptor has them, on Windows the standard library's types |
//!
//! Programs that this process starts do not inherit handles that this crate makes, and no such handle has the number of
//! a standard stream.
//!
//! ## `own`: handles that check their file
//! | item | promise |
//! | --- | --- |
//! | `File` | the file that a handle leads to: `of` a handle, `and_len` with how many bytes there are, `with_len_and_names`, `at` a number (`None`: not open, or not known); `numbers` and `from_numbers` are its two parts, `mixed` is one number for both |
//! | `is_open` | whether a number is not free; true if that is not known |
//! | `Own` | an owned handle that is used and closed only while it leads to the file that it was made for. `new`, `is_there`, `found` (error: it leads to another file), `into_handle`; `not_there` is that error |
//! | `Lent` | a borrowed handle without a lifetime (unsafe `new`); never closed |
//! | `arrived` | moves a handle as `above_stdio` does; without another number it keeps its number |
//! | `above_stdio` | the same handle under a number that is not a standard stream's (error: no handle left) |
//!
//! ## `atfork`: handles that forked children must not have
//! Systems without forks keep the handle and do nothing else.
//!
//! | item | promise |
//! | --- | --- |
//! | `making` | runs a function during which no fork happens |
//! | `OnceLock` | a value that `get_or_init` makes at its first use, inside `making` |
//! | `Handlers` | three functions for each fork: before it, after it in the parent and in the child. `register` registers them once (error: no memory; the next call tries again) |
//! | `hold_forks` | makes forks wait for `making`, for tables that a child must find consistent (error: no memory) |
//! | `register`, `unregister` | from then on a handle is closed in forked children, or no longer. `unregister` returns false if it was not registered |
//! | `HubOnly` | an owned handle that is registered while it exists; it is closed in a forked child. `new`, `is_there` (false: a child's copy, or the program has closed it), `into_handle` (error: a child's copy) |
//! | `NotForChildren` | registers another owner's handle while it exists: `new` |
//! | `hold_until_the_end` | keeps a handle open until this process ends |
//!
//! ## `epoch`: whether this process has forked
//! | item | promise |
//! | --- | --- |
//! | `count_forks` | begins to count (error: no memory) |
//! | `Epoch`, `Since` | `now` is a moment; `since` says whether this process has forked after it, or is a child that was forked after it; `generation` counts the forks between the program's first process and this one |
//!
//! # Shared memory
//! ## `memory`: without a name
//! | item | promise |
//! | --- | --- |
//! | `create` | returns `len` zeroed bytes of a fixed size. The system frees them with the last handle and mapping, even after a crash. Errors: `is_too_long`, a shortage |
//! | `is_fixed` | whether the size of memory from another process is fixed: only then it may be mapped |
//! | `len`, `read_at`, `read_all`, `write_at` | its size; copies out of it and into it (`UnexpectedEof`, `WriteZero` beyond the end) |
//! | `release` | frees whole pages, which read as zeros afterwards; an error on a system that cannot do it |
//! | `duplicate`, `close_on_exec` | returns another handle on it; prevents programs from inheriting a handle from another process |
//! | `longest`, `is_narrow` | the greatest length of memory; whether the address space is limited |
//! | `is_too_long`, `too_long`, `is_scarce`, `out_of_memory` | errors: the length exceeds the limit; no more mappings; no memory |
//! | `PAGES` | a multiple of every system's page size |
//! | `Mapping` | bytes of memory in this process: `new`, `at` an offset (whole pages), `joined` of several pieces; `start`, `len`, `is_empty`. Errors: `is_scarce` |
//! | `Share` | writes are visible to `All` mappings, or, with `CopyOnWrite`, only to this one |
//! | `keep_from_children`, `prepare`, `map_in` | hints; `prepare` returns an error if there is no memory for the pages |
//!
//! ## `named`: under a name
//! | item | promise |
//! | --- | --- |
//! | `create`, `find`, `unlink` | creates memory of at least some length under a name (`AlreadyExists`); opens the memory of a name (`NotFound`); removes the name, while the memory stays until its last user ends |
//! | `reserve` | reserves room, so that no write to the memory fails; does nothing on a system that cannot |
//! | `leads_to` | whether a name still leads to the memory behind a handle |
//! | `open` | opens memory with the system's own flags and mode, which Python passes on |
//! | `section` | creates or finds memory under the system's own name, for systems without flags and modes (`AlreadyExists`, `NotFound`); returns its length, too |
//!
//! ## `plain`: private memory
//! | item | promise |
//! | --- | --- |
//! | `Plain` | zeroed memory, in huge pages if there are any: `new`, `start`, `len`, `is_empty`; `forget` returns whole pages to the system, or does nothing |
//!
//! # Waiting and locking in shared memory
//! | item | promise |
//! | --- | --- |
//! | `futex::wait` | sleeps while a word holds a value, until any process calls `wake`; may return early. It has no errors: `Woken` is the reason why it returned |
//! | `futex::wake` | wakes up to `count` sleepers |
//! | `mutex::Mutex` | a lock in shared memory: unsafe `init` in fresh memory, `try_lock`, `lock_within` a time, unsafe `unlock` by the holder |
//! | `mutex::Found` | `Taken`: another thread holds the lock. `Ours`: the caller holds it. `Orphaned`: the caller holds it, and its last holder died while it held the lock and had the memory mapped |
//! | `holder::identity`, `holder::Identity` | words that identify this process to others; zeros if they are unknown |
//! | `holder::is_gone` | whether such a process has certainly ended; false if that is unknown |
//!
//! # Streams
//! ## `stream`: bytes and handles
//! | item | promise |
//! | --- | --- |
//! | `pair`, `pipe`, `packet_pair` | two connected ends: for both directions; one to read from and one to write to; for packets |
//! | `kind`, `Kind`, `is_packets`, `is_pipe` | whether handles can be sent over it; whether it is for packets, and whether it is a pipe's end |
//! | `read`, `read_into`, `read_to_end`, `write`, `write_all` | wait; 0 is the end of the stream. All except `read_to_end` and `write_all` end with `Interrupted` |
//! | `write_socket`, `read_socket` | as `write` (without the signal of a closed end) and `read_into`, of a socket; `not_there` of any other file |
//! | `read_available` | reads from any stream without waiting: `None` if there is nothing |
//! | `read_with`, `write_with` | also transfer handles, with the first byte, at most `MOST_HANDLES` |
//! | `read_now`, `write_now` | also transfer handles, without waiting: `None` if there is nothing, or no room |
//! | `send_packet`, `peek_packet` | sends a whole packet or nothing (false: no room); copies the start of the next packet, which stays |
//! | `receive`, `Received`, `send`, `send_now` (of `socket`) | receives available bytes; sends some bytes, after waiting for room for the first (`send_now`: without waiting) |
//! | `take_cut` | whether received handles were lost because this process had no number left |
//! | `recognize` | learns what a number leads to that other code has opened and this crate takes over, so that it is closed as its kind requires |
//! | `companion` | another handle that has to stay open until the process that takes this one over has used it; `None` on most systems |
//! | `set_blocking`, `shut`, `hang_up` | makes calls wait; closes one direction; closes both directions, for all holders of the socket |
//! | `mark`, `is_marked`, `is_peer_marked` | a mark on an end, which both ends see; an error on a system without marks |
//!
//! ## `standoff`: both ends full
//! | item | promise |
//! | --- | --- |
//! | `unread`, `Unread`, `Other` | the unreceived bytes at both ends (`None`: one end has none), and the known state of the other end |
//! | `Said`, `unsay` | announces that this end waits, while it exists, or from `leave` to `unsay`; `new` returns an error if the system cannot announce it |
//!
//! ## `ready`: waiting for handles
//! | item | promise |
//! | --- | --- |
//! | `Interest` | waits for a handle that is readable, at its end, or closed at its other end (`new`), or that has room (`room`); `ready` is the result |
//! | `wait` | waits for any number of handles, and returns how many are ready; 0 after the timeout or a signal handler |
//! | `wait_for` | waits for one handle; false: a signal handler may have run; call it again |
//! | `Kick` | a handle that is readable from `kick` to `clear`, for threads, and for processes that make it by `from_handle` |
//!
//! ## `socket`: listening and connecting
//! | item | promise |
//! | --- | --- |
//! | `Place` | a path or a network address; `LONGEST_PATH` bytes at most |
//! | `own_name` | a name that the system removes with its listener, or `None` |
//! | `listen`, `accept`, `is_taken` | returns a listener; accepts a client without waiting (`None`: no client waits); whether a listener has accepted this client, if that is known |
//! | `Dial` | `new`, `connect` (`TimedOut`, and may be called again; `Interrupted`), `into_handle` |
//! | `address`, `peer` | the address of this end; the other end, as text for messages |
//! | `send_at_once`, `keep_alive` | set options of network connections; do nothing for others |
//! | `file` | the file at a path (`None`: the name is not in the file system), to detect a replacement |
//! | `random` | unpredictable bytes |
//! | `socket_dir::SocketDir` | a folder that only this user can enter: `new`, `socket` (a path in it), `remove`. `new` also removes the folders of killed processes |
//!
//! ## `wire`: the line between hub and worker
//! | item | promise |
//! | --- | --- |
//! | `Wire` | `pair`, `for_worker` (inside `making`), `from_handle`; `send` (`WouldBlock`: full) and `receive` never wait; `wait`, `is_hung_up` |
//! | `Note` | a number with its handles, a number with only some of its handles, the end, or nothing. Notes arrive even after their sender has closed its end |
//! | `take` | receives even if this process has no number left for handles that it closes at once |
//! | `MOST` | the greatest number of handles of a note |
//! | `out_of_handles`, `is_out_of_handles`, `is_crowded` | errors: no handle left in this process; too many handles in transit |
//!
//! ## `tap`: a worker's standard error
//! | item | promise |
//! | --- | --- |
//! | `pair`, `redirect`, `drain` | returns two ends; makes an end this process's standard error; reads without waiting (`None`: closed) |
//! | `forward`, `forward_at_once`, `forward_until_closed` | writes to this process's standard error; writes what can be written without waiting, and returns its length; forwards everything until the other end closes |
//! | `records`, `record`, `RECORD` | returns two ends for records; writes a record of at most `RECORD` bytes in one piece (false: no room, or no reader) |
//!
//! # Processes
//! | item of `process` | promise |
//! | --- | --- |
//! | `Start`, `Stdio`, `start` | starts a program with default signals, and with the arguments, environment, folder, streams and handles (under the same numbers) of `Start`, and no other handles. Returns its number, and a handle that becomes readable when it ends |
//! | `start_free` | as `start`; the process continues when this one is killed, unless it ends by itself |
//! | `Forked`, `fork` | (unsafe) a copy of this process |
//! | `has_handles`, `open` | whether the system has handles on processes; opens a handle on a process |
//! | `reserve_handle`, `open_child` | reserves a number for a handle on a child; opens the handle, and waits for a number up to a second |
//! | `kill`, `terminate`, `end_by_number` | end a process at once; request its end. A process that has ended is not affected |
//! | `discard` | ends a child at once, and reaps it |
//! | `family::kill_family` | ends a process and all that descend from it, at once; a process whose parent has ended is not found |
//! | `family::interrupt`, `family::interrupt_number` | sends a worker the signal that interrupts its task; the number of that signal (0: there is none) |
//! | `usage::memory_of`, `usage::peak_memory_of`, `usage::memory_kills` | the memory that a process uses (no files, no shared memory), and the most that it has used, in bytes; how many processes the system has ended so far because memory ran out. `None`: unknown |
//! | `limits::most_processes`, `limits::most_memory` | the limits on the number of processes and threads, with the names of what sets them; how many bytes of memory the control groups of this process allow. `None`: no limit |
//! | `limits::own`, `limits::Soft`, `limits::lend` | the limits of this process, which its children inherit; raises the limits with which a child began to those that this process has now, as far as the system allows |
//! | `memory_group::MemoryGroups` | where this process makes groups of processes whose memory the system limits: `new` (`None`: it may not), which also removes the groups of processes that have ended; `hold` makes a group for a process |
//! | `memory_group::MemoryGroup`, `memory_group::SLACK` | a group of a process and of those that it starts: `confine` limits their private memory; `excess` tells whether it is exceeded, and has to be called from time to time; `killed` tells whether the system has ended a process at the limit. The system ends or stops no process whose memory, less the shared memory, is within the limit, as long as `excess` is called. All memory is within the limit, the shared memory and `SLACK` |
//! | `reap`, `exit_told`, `Exit`, `Cause`, `cause_name` | how a child of this process ended (`None`: it runs); how a child of another process ended, if that is known. An exit is a code or a cause; both have Python's numbers |
//! | `claim` | (unsafe) takes over a handle that this process inherited at its start, by its number |
//! | `is_same_variable` | whether two names are those of one variable of the environment |
//! | `close_number`, `put_in_place`, `set_variable` | (unsafe) closes a number; makes a handle a standard stream; changes the environment |
//! | `nothing` | a handle that reads as empty and discards writes |
//! | `lifeline`, `hung_up`, `until_hung_up` | returns a pipe; whether its other end is closed; waits until it is closed |
//! | `die_when_hung_up` | makes the system kill this process when the other end closes, even while it is busy, as long as the returned handle is open; or returns an error |
//! | `maker::end_after`, `maker::runs` | requests the end of this process when its maker has ended, and kills it later; whether a process runs |
//! | `terminate_itself`, `die`, `leave` | requests the end of this process; kills it; ends it without destructors |
//! | `crash_at_once` | makes a crash end this process at once, on systems that may show a dialog before or start a debugger; `worker_signals` does so, too |
//! | `worker_signals`, `program_signals`, `ignore_broken_pipes`, `take_name`, `privileged` | set the signals of a worker, and of a program; ignore SIGPIPE; set the process's name; whether its environment is untrusted |
//! | `packet::pair`, `packet::send`, `packet::receive`, `packet::MOST_HANDLES` | a blocking socket for packets, to a fork server |
//! | `image::image`, `image::Image`, `image::symbol` | the addresses of this program's code, and its build; the name of a function |
//!
//! # The rest
//! | item | promise |
//! | --- | --- |
//! | `quiet::spawn`, `quiet::Number` | starts a thread that receives no signals; a thread's number (`own`), and whether the thread exists (`is_there`) |
//! | `aside` | runs a function in a thread with a separate handle table, if this process has no handle left; an error on systems without such threads |
//! | `error_number` | the number that C's library has for an error of the system, if there is one |
//! | `is_limit_of_processes` | whether the error of a start reports a limit on the number of processes and threads |
//! | `is_shortage`, `advice` | whether an error reports a shortage; a hint for its reader |
//! | `clock::now` | monotonic nanoseconds, the same in every process |
//! | `allowed_cores`, `keep_to_cores` | the numbers of the processors that this process may run on; limits the calling thread, and the threads that it starts, to some of them, or returns an error |
//! | `cores`, `most_handles`, `process_id`, `is_first_thread` | this process's processors, limit of handles and number; whether the caller is its first thread |
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_has_atomic = "64"))]
compile_error!(
    "maniple needs atomic numbers of 64 bits, which its processes share, and this target has none. \
     Build for a processor that has them, such as i686, armv7 or any of 64 bits"
);
#[cfg(not(any(target_pointer_width = "32", target_pointer_width = "64")))]
compile_error!("maniple needs addresses of 32 or 64 bits. Build for another target");

mod exit;
mod handle;
// With the backends that use it, compiled for tests on every system.
#[cfg(any(test, maniple_posix, not(target_os = "linux")))]
#[cfg_attr(unix, allow(dead_code))]
mod lacking;
// `maniple_posix` is for tests: macOS's backend on Linux, with a stand-in for what only macOS has.
#[cfg(all(target_os = "linux", not(maniple_posix)))]
mod linux;
#[cfg(any(target_os = "macos", maniple_posix))]
mod macos;
#[cfg(any(target_os = "macos", maniple_posix, windows))]
mod portable;
mod start;
// Compiled for tests on every system: its answers are tested.
#[cfg(any(test, not(any(target_os = "linux", target_os = "macos", windows))))]
#[cfg_attr(any(target_os = "linux", target_os = "macos", windows), allow(unused_imports, dead_code))]
mod stub;
mod terms;
#[cfg(all(any(target_os = "linux", windows), any(test, feature = "testing")))]
#[doc(hidden)]
pub mod testing;
#[cfg(unix)]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code))]
pub mod unix;
#[cfg(any(unix, windows))]
mod whole;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
#[doc(hidden)]
pub use handle::fd;
pub use handle::{AsHandle, AtomicRawHandle, BorrowedHandle, FromHandle, IntoHandle, OwnedHandle, RawHandle};
#[cfg(all(target_os = "linux", not(maniple_posix)))]
pub use linux::*;
#[cfg(any(target_os = "macos", maniple_posix))]
pub use macos::*;
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
pub use stub::*;
#[cfg(unix)]
pub use unix::{atfork, epoch};
#[cfg(windows)]
pub use windows::*;

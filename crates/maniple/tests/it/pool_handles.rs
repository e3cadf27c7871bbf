//! Files, sockets and pipes in a pool's arguments and results: they arrive, and no process leaves one open.

use crate::support::{METHODS, eventually, exists, kill_self, pool, watchdog};
use maniple::{CallOptions, Error, Handle, Pool};
use maniple_sys::testing::{self, Signal, Stream};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Seek, SeekFrom, Write};
use std::sync::Mutex;

#[derive(Serialize, Deserialize)]
struct Order {
    name: String,
    file: Handle<File>,
    #[serde(with = "maniple::handle")]
    socket: Stream,
}

fn temporary(content: &str) -> File {
    let mut file = tempfile(content.len());
    file.write_all(content.as_bytes()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

fn tempfile(len: usize) -> File {
    testing::temporary_file(len as u64)
}

fn serve(mut order: Order) -> Order {
    let mut text = String::new();
    order.file.read_to_string(&mut text).unwrap();
    order.socket.write_all(format!("{}: {text}", order.name).as_bytes()).unwrap();
    order
}

/// How many descriptors a process has open.
fn open_in(pid: u32) -> usize {
    testing::handles_of(pid)
}

/// One test at a time: the descriptors of the whole process are counted.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs `work` on a pool of so many workers, time and again, and checks that neither this process nor a worker has more descriptors in
/// the end.
fn leaves_nothing(pool: &Pool, workers: usize, work: impl Fn(&Pool)) {
    let count = || {
        eventually("all workers are up", || {
            let pids: Vec<u32> = pool.with(CallOptions::new().chunksize(1)).map(who, 0..8).unwrap();
            let up: std::collections::HashSet<u32> = pids.into_iter().collect();
            up.len() == workers && pool.pids().iter().all(|&pid| up.contains(&pid) && exists(pid))
        });
        (open_in(std::process::id()), pool.pids().into_iter().map(open_in).sum::<usize>())
    };
    // What is made once and kept (blocks, the function, a first thread) is made by the first rounds.
    for _ in 0..3 {
        work(pool);
    }
    let before = count();
    for _ in 0..4 {
        work(pool);
    }
    eventually(&format!("no more descriptors than {before:?}"), || {
        let now = count();
        now.0 <= before.0 && now.1 <= before.1
    });
}

fn who(_: u8) -> u32 {
    std::thread::sleep(std::time::Duration::from_millis(3));
    std::process::id()
}

#[test]
fn a_file_and_a_socket_in_a_struct_go_to_a_worker_and_come_back() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    for method in METHODS {
        leaves_nothing(&pool(method, 2), 2, |pool| {
            let (mut here, socket) = Stream::pair().unwrap();
            let order = Order { name: "one".into(), file: temporary("content").into(), socket };
            let mut back = pool.apply(serve, order).unwrap();
            let mut said = vec![0; "one: content".len()];
            here.read_exact(&mut said).unwrap();
            assert_eq!(said, b"one: content");
            // The same open file: the worker read to its end.
            assert_eq!(back.file.stream_position().unwrap(), "content".len() as u64);
            here.write_all(b"!").unwrap();
            back.socket.read_exact(&mut [0]).unwrap();
        });
    }
}

#[test]
fn a_map_takes_and_gives_one_with_every_item() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    fn double(mut file: Handle<File>) -> Vec<Handle<File>> {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        (0..10).map(|i| temporary(&format!("{text}.{i}")).into()).collect()
    }
    leaves_nothing(&Pool::new(2).unwrap(), 2, |pool| {
        let files: Vec<Handle<File>> = (0..60).map(|i| temporary(&i.to_string()).into()).collect();
        for (i, group) in
            pool.with(CallOptions::new().chunksize(30)).map(double, files).unwrap().into_iter().enumerate()
        {
            for (j, mut file) in group.into_iter().enumerate() {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, format!("{i}.{j}"));
            }
        }
    });
}

#[test]
fn large_buffers_and_descriptors_travel_together() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    type Both = (maniple::Bytes, Handle<File>, String);
    fn back((mut bytes, file, text): Both) -> Both {
        bytes[0] += 1;
        (bytes, file, text)
    }
    leaves_nothing(&Pool::new(1).unwrap(), 1, |pool| {
        let sent = (vec![1u8; 100_000].into(), temporary("x").into(), "long ".repeat(10_000));
        let (bytes, mut file, text) = pool.apply(back, sent).unwrap();
        assert_eq!((bytes[0], bytes[99_999], text.len()), (2, 1, 50_000));
        assert_eq!(file.read(&mut [0; 8]).unwrap(), 1);
    });
}

#[test]
fn a_state_and_an_initializers_argument_have_them_too() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    static LOG: Mutex<Option<Handle<PipeWriter>>> = Mutex::new(None);
    fn log(x: u32) -> u32 {
        LOG.lock().unwrap().as_mut().unwrap().write_all(b".").unwrap();
        x
    }
    fn shared(file: &Handle<File>, x: u64) -> u64 {
        file.metadata().unwrap().len() + x
    }
    for method in METHODS {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let pool = Pool::builder()
            .processes(2)
            .start_method(method)
            .initializer(|writer: Handle<PipeWriter>| *LOG.lock().unwrap() = Some(writer), writer.into())
            .build()
            .unwrap();
        assert_eq!(pool.map(log, 0..10).unwrap().len(), 10);
        reader.read_exact(&mut [0; 10]).unwrap();
        leaves_nothing(&pool, 2, |pool| {
            let file = Handle::new(temporary("1234"));
            assert_eq!(pool.map_with(&file, shared, 0..3).unwrap(), [4, 5, 6]);
            // What the worker kept of the function goes when it next looks.
            assert_eq!(pool.with(CallOptions::new().chunksize(1)).map(log, 0..2).unwrap(), [0, 1]);
            reader_skip(&reader, 2);
        });
        drop(pool);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "{method:?}: somebody still has the initializer's pipe");
    }
}

fn reader_skip(mut reader: &PipeReader, bytes: usize) {
    reader.read_exact(&mut vec![0; bytes]).unwrap();
}

fn hold(_: Handle<PipeWriter>) {
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// The reader of a pipe whose other end went into a task detects its end although no caller waits for the task.
#[test]
fn a_pipe_ends_with_the_task_though_nobody_waits_for_that() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    let pool = Pool::new(1).unwrap();
    for _ in 0..5 {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let job = pool.apply_async(hold, writer.into()).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        job.get().unwrap();
    }
}

/// The task that is to end the pipe must not be given, in advance, to the worker that reads it to its end.
#[test]
fn a_descriptor_is_not_kept_by_a_worker_that_is_busy_with_something_else() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    let pool = Pool::new(2).unwrap();
    // So that tasks are known to be short, and some are given in advance.
    pool.map(hold_nothing, vec![0u8; 200]).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let read = pool.apply_async(read_all, reader.into()).unwrap();
    let writers: Vec<Handle<PipeWriter>> = (0..20).map(|_| writer.try_clone().unwrap().into()).collect();
    drop(writer);
    pool.with(CallOptions::new().chunksize(1)).map(hold, writers).unwrap();
    assert_eq!(read.get().unwrap(), 0);
}

fn hold_nothing(_: u8) {}

fn read_all(mut reader: Handle<PipeReader>) -> usize {
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap()
}

#[test]
fn a_killed_workers_are_closed() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    fn die(_: Handle<PipeWriter>) {
        kill_self(Signal::KILL);
    }
    leaves_nothing(&Pool::new(2).unwrap(), 2, |pool| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let job = pool.apply_async(die, writer.into()).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        assert!(matches!(job.get(), Err(Error::WorkerLost(_))));
    });
}

#[test]
fn a_cancelled_tasks_are_closed() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    fn wait_for((mut gate, _rest): (Handle<PipeReader>, Option<Handle<PipeWriter>>)) {
        let _ = gate.read(&mut [0]);
    }
    leaves_nothing(&Pool::new(1).unwrap(), 1, |pool| {
        let (gate, open) = std::io::pipe().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let first = pool.apply_async(wait_for, (gate.try_clone().unwrap().into(), None)).unwrap();
        let others: Vec<_> = (0..5)
            .map(|_| {
                let item = (gate.try_clone().unwrap().into(), Some(writer.try_clone().unwrap().into()));
                pool.apply_async(wait_for, item).unwrap()
            })
            .collect();
        drop((gate, writer));
        for job in others {
            job.cancel();
            assert!(matches!(job.get(), Err(Error::Call(maniple::CallError::Cancelled))));
        }
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        drop(open);
        first.get().unwrap();
    });
}

#[test]
fn a_terminated_pools_are_closed() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let pool = Pool::new(1).unwrap();
    let busy = pool.apply_async(|()| std::thread::sleep(std::time::Duration::from_secs(600)), ()).unwrap();
    let jobs: Vec<_> = (0..3).map(|_| pool.apply_async(hold, writer.try_clone().unwrap().into()).unwrap()).collect();
    drop(writer);
    pool.terminate();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert!(matches!(busy.get(), Err(Error::Call(maniple::CallError::Terminated))));
    for job in jobs {
        assert!(matches!(job.get(), Err(Error::Call(maniple::CallError::Terminated))));
    }
}

#[test]
fn hundreds_travel_in_one_value() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    leaves_nothing(&Pool::new(1).unwrap(), 1, |pool| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let all: Vec<Handle<PipeWriter>> = (0..300).map(|_| writer.try_clone().unwrap().into()).collect();
        drop(writer);
        let back = pool.apply(|all: Vec<Handle<PipeWriter>>| all, all).unwrap();
        assert_eq!(back.len(), 300);
        drop(back);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn connections_and_queues_go_to_workers_and_come_back() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    type Both = (maniple::Connection<u32>, maniple::Queue<u32>);
    fn work((connection, queue): Both) -> Both {
        connection.send(&(connection.recv().unwrap() + 1)).unwrap();
        queue.put(&7).unwrap();
        (connection, queue)
    }
    leaves_nothing(&Pool::new(2).unwrap(), 2, |pool| {
        let (here, there) = maniple::pipe::<u32>().unwrap();
        let queue = maniple::Queue::new().unwrap();
        here.send(&1).unwrap();
        let (back, queue) = pool.apply(work, (there, queue)).unwrap();
        assert_eq!(here.recv().unwrap(), 2);
        assert_eq!(queue.get().unwrap(), 7);
        back.send(&3).unwrap();
        assert_eq!(here.recv().unwrap(), 3);
    });
}

/// A task with descriptors is not given in advance, which must not cost a worker that is to be replaced its last task.
#[test]
fn workers_that_are_replaced_take_descriptors_too() {
    let (_dog, _alone) = (watchdog(), ALONE.lock());
    let pool = Pool::builder().processes(2).max_tasks_per_child(2).build().unwrap();
    pool.with(CallOptions::new().chunksize(1)).map(hold_nothing, vec![0u8; 8]).unwrap();
    let files: Vec<Handle<File>> = (0..12).map(|i| temporary(&i.to_string()).into()).collect();
    let lengths = pool
        .with(CallOptions::new().chunksize(1))
        .map(|file: Handle<File>| file.metadata().unwrap().len(), files)
        .unwrap();
    assert_eq!(lengths, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]);
}

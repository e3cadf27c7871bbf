//! Under a limit on file sizes, for which shared memory counts: what does not fit is an error of the call that met it.

use crate::support::{METHODS, apart, pool, watchdog};
use maniple::{Bulk, Error, Queue};
use maniple_sys::testing::{Resource, Rlimit, setrlimit};

const LIMIT: u64 = 1 << 20;
const LARGE: usize = 3 << 20;

fn short_files() {
    setrlimit(Resource::Fsize, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
}

#[test]
fn pools_carry_what_they_carry_without_it() {
    let _dog = watchdog();
    apart(|()| {
        short_files();
        for method in METHODS {
            let pool = pool(method, 2);
            for _ in 0..3 {
                assert_eq!(pool.apply(|bytes: Bulk<u8>| bytes.len(), Bulk::from(vec![1; LARGE])).unwrap(), LARGE);
                let made = pool.apply(|len: usize| Bulk::from(vec![7u8; len]), LARGE).unwrap();
                assert!(made.len() == LARGE && made.iter().all(|&byte| byte == 7));
            }
            assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
        }
    });
}

#[test]
fn queues_say_when_they_are_full_and_go_on() {
    let _dog = watchdog();
    apart(|()| {
        let early = Queue::new().unwrap();
        short_files();
        early.put(&vec![3u8; LARGE]).unwrap();
        assert_eq!(early.get().unwrap(), vec![3u8; LARGE]);

        let queue = Queue::new().unwrap();
        for round in 0..3u8 {
            let mut put = 0;
            let full = loop {
                match queue.put(&vec![round; 100_000]) {
                    Ok(()) => put += 1,
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(full, Error::Channel(maniple::ChannelError::QueueMemory(_)))
                    && full.to_string().contains("ulimit -f"),
                "{full}"
            );
            assert!(put > 5);
            for _ in 0..put {
                assert_eq!(queue.get().unwrap(), vec![round; 100_000]);
            }
            assert!(queue.put(&vec![1u8; LARGE]).is_err() && queue.is_empty());
        }
    });
}

#[test]
fn a_message_that_cannot_be_sent_leaves_the_pipe_as_it_was() {
    let _dog = watchdog();
    apart(|()| {
        short_files();
        let (here, there) = maniple::pipe::<Vec<u8>>().unwrap();
        assert!(here.send(&vec![1u8; LARGE]).is_err());
        here.send(&vec![5]).unwrap();
        assert_eq!(there.recv().unwrap(), [5]);
        here.send(&vec![2u8; 500_000]).unwrap();
        assert_eq!(there.recv().unwrap(), vec![2; 500_000]);
    });
}

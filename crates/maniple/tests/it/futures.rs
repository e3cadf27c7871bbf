//! Waiting as futures and streams, with any executor, and futures that are dropped half-way.

use crate::support::{self, LONG, SHORT, block_on, eventually, started, watchdog};
use futures_core::Stream;
use maniple::{
    BoundedSemaphore, CallOptions, Client, Event, Listener, Lock, Mutex, Pool, Queue, RwLock, Semaphore, channel,
    wait_async,
};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One by an executor of ours, of this thread; one by tokio's, of several threads.
fn executors() -> [fn(Work); 2] {
    [block_on, |future| {
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        tokio.block_on(async { tokio::spawn(future).await.unwrap() });
    }]
}

fn with_each(make: impl Fn() -> Work) {
    let _alive = watchdog();
    executors().into_iter().for_each(|run| run(make()));
}

/// Begins with a future, lets it wait for a moment, and drops it.
fn drop_half_way<F: Future>(future: F) {
    let mut future = pin!(future);
    for _ in 0..3 {
        assert!(matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        thread::sleep(SHORT);
    }
}

fn later(work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        thread::sleep(SHORT);
        work();
    })
}

#[test]
fn locks_units_and_events_are_waited_for() {
    with_each(|| {
        Box::pin(async {
            let (lock, mutex, rwlock) = (Lock::new().unwrap(), Mutex::new(1).unwrap(), RwLock::new(1).unwrap());
            let (units, bounded) = (Semaphore::new(1).unwrap(), BoundedSemaphore::new(1).unwrap());
            let event = Event::new().unwrap();
            let all = (lock.clone(), mutex.clone(), rwlock.clone(), units.clone(), bounded.clone());
            let set = event.clone();
            let (ready, is_ready) = std::sync::mpsc::channel();
            let holder = thread::spawn(move || {
                let (lock, mutex, rwlock, units, bounded) = all;
                let held = (lock.lock().unwrap(), mutex.lock().unwrap(), rwlock.write().unwrap(), bounded.acquire());
                units.acquire();
                ready.send(()).unwrap();
                thread::sleep(4 * SHORT);
                drop(held);
                units.release().unwrap();
                set.set();
            });
            is_ready.recv().unwrap();
            drop(lock.lock_async().await.unwrap());
            *mutex.lock_async().await.unwrap() += 1;
            let (one, other) = (rwlock.read_async().await.unwrap(), rwlock.read_async().await.unwrap());
            assert_eq!(*one + *other, 2);
            drop((one, other));
            *rwlock.write_async().await.unwrap() += 1;
            units.acquire_async().await;
            drop(bounded.acquire_async().await.unwrap());
            event.wait_async().await;
            holder.join().unwrap();
            assert_eq!((*mutex.lock().unwrap(), *rwlock.read().unwrap(), units.value()), (2, 2, 0));
        })
    });
}

#[test]
fn a_future_of_a_lock_that_is_dropped_half_way_keeps_nothing() {
    let _alive = watchdog();
    let (lock, rwlock) = (Lock::new().unwrap(), RwLock::new(1).unwrap());
    let (units, bounded, event) =
        (Semaphore::new(1).unwrap(), BoundedSemaphore::new(1).unwrap(), Event::new().unwrap());
    units.acquire();
    let held = (lock.lock().unwrap(), rwlock.write().unwrap(), bounded.acquire().unwrap());
    drop_half_way(lock.lock_async());
    drop_half_way(rwlock.read_async());
    drop_half_way(rwlock.write_async());
    drop_half_way(units.acquire_async());
    drop_half_way(bounded.acquire_async());
    drop_half_way(event.wait_async());
    drop(held);
    units.release().unwrap();
    // A thread may have got one just then, and releases it.
    eventually("all is free again", || {
        lock.try_lock().is_ok() && rwlock.try_write().is_ok() && bounded.value() == 1 && units.value() == 1
    });
    thread::sleep(SHORT);
    assert!(lock.try_lock().is_ok() && rwlock.try_write().is_ok() && bounded.value() == 1 && units.value() == 1);
    // A future that has got it and was not polled again.
    let held = lock.lock().unwrap();
    {
        let mut future = pin!(lock.lock_async());
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(held);
        eventually("the thread has it", || lock.is_locked());
    }
    eventually("it is given back", || !lock.is_locked());
}

#[test]
fn a_death_is_told_to_a_future() {
    let _alive = watchdog();
    let (lock, rwlock) = (Lock::new().unwrap(), RwLock::new(1).unwrap());
    let dies = started(
        |(lock, rwlock): (Lock, RwLock<i32>)| {
            std::mem::forget((lock.lock(), rwlock.write()));
            support::kill_self(maniple_sys::testing::Signal::KILL);
        },
        (lock.clone(), rwlock.clone()),
    );
    dies.join().unwrap();
    assert!(block_on(lock.lock_async()).is_err() && block_on(rwlock.read_async()).is_err());
}

#[test]
fn a_put_waits_for_room() {
    with_each(|| {
        Box::pin(async {
            let queue = Queue::bounded(1).unwrap();
            let theirs = queue.clone();
            let reader = later(move || (0..100).for_each(|n| assert_eq!(theirs.get().unwrap(), n)));
            for n in 0..100 {
                queue.put_async(&n).await.unwrap();
            }
            reader.join().unwrap();
            assert!(queue.is_empty());
            queue.close().unwrap();
            assert!(queue.put_async(&1).await.is_err());
        })
    });
}

#[test]
fn a_put_that_is_dropped_half_way_puts_nothing() {
    let _alive = watchdog();
    let queue = Queue::bounded(1).unwrap();
    queue.put(&1).unwrap();
    drop_half_way(queue.put_async(&2));
    assert_eq!(queue.get().unwrap(), 1);
    thread::sleep(SHORT);
    assert_eq!(queue.try_get().unwrap(), None);
    queue.put(&3).unwrap();
    assert_eq!(queue.get().unwrap(), 3);
}

#[test]
fn clients_are_accepted_with_and_without_a_key() {
    with_each(|| {
        Box::pin(async {
            for key in [None, Some("a key")] {
                let listener = key.map_or_else(Listener::builder, |key| Listener::builder().authkey(key));
                let listener = listener.temporary().unwrap();
                let address = listener.address().clone();
                let clients = later(move || {
                    for n in 0..3u8 {
                        let client = key.map_or_else(Client::builder, |key| Client::builder().authkey(key));
                        client.connect(address.clone()).unwrap().send(&n).unwrap();
                    }
                });
                assert_eq!(listener.accept_async::<u8>().await.unwrap().recv().unwrap(), 0);
                let mut stream = listener.incoming_stream::<u8>();
                for n in 1..3 {
                    assert_eq!(next(&mut stream).await.unwrap().unwrap().recv().unwrap(), n);
                }
                clients.join().unwrap();
            }
        })
    });
}

#[test]
fn a_client_is_not_lost_with_the_future_that_would_have_accepted_it() {
    let _alive = watchdog();
    for key in [None, Some("a key")] {
        let listener = key.map_or_else(Listener::builder, |key| Listener::builder().authkey(key)).temporary().unwrap();
        let address = listener.address().clone();
        drop_half_way(listener.accept_async::<u8>());
        let client = thread::spawn(move || {
            let client = key.map_or_else(Client::builder, |key| Client::builder().authkey(key));
            client.connect(address).unwrap().send(&7u8).unwrap();
        });
        // Begun while the client authenticates itself, and dropped at some moment of that.
        let mut found = None;
        for _ in 0..3 {
            let mut future = pin!(listener.accept_async::<u8>());
            if let Poll::Ready(accepted) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                found = Some(accepted.unwrap());
                break;
            }
            thread::sleep(Duration::from_millis(3));
        }
        let found = found.unwrap_or_else(|| listener.accept_timeout::<u8>(LONG).unwrap());
        assert_eq!(found.recv().unwrap(), 7);
        client.join().unwrap();
    }
}

#[test]
fn an_address_is_free_as_soon_as_its_listener_is_dropped() {
    let _alive = watchdog();
    let path = std::env::temp_dir().join(format!("maniple-futures-{}", std::process::id()));
    for _ in 0..3 {
        let listener = Listener::builder().authkey("a key").bind(path.to_str().unwrap()).unwrap();
        // A client that says nothing, so that a thread waits for it.
        let _silent = maniple_sys::testing::Stream::connect(&path).unwrap();
        drop_half_way(listener.accept_async::<u8>());
        drop(listener);
        assert!(!path.exists());
    }
}

#[test]
fn any_of_several_ends_is_waited_for() {
    with_each(|| {
        Box::pin(async {
            let ((to_first, first), (to_second, second)) = (channel::<u8>().unwrap(), channel::<u8>().unwrap());
            let sender = later(move || {
                to_second.send(&1).unwrap();
                drop(to_first);
            });
            let ready = wait_async(&[&first, &second]).await.unwrap();
            assert!(ready.contains(&1), "{ready:?}");
            sender.join().unwrap();
            assert_eq!(wait_async(&[&first, &second]).await.unwrap(), [0, 1]);
        })
    });
    let (_sender, receiver) = channel::<u8>().unwrap();
    drop_half_way(wait_async(&[&receiver]));
}

#[test]
fn messages_and_values_come_as_a_stream_to_its_end() {
    with_each(|| {
        Box::pin(async {
            let (sender, receiver) = channel::<u32>().unwrap();
            let queue = Queue::<u32>::new().unwrap();
            let theirs = queue.clone();
            let writer = later(move || {
                for n in 0..1000 {
                    sender.send(&n).unwrap();
                    theirs.put(&n).unwrap();
                }
                theirs.close().unwrap();
            });
            let (mut messages, mut values) = (receiver.stream(), queue.stream());
            for n in 0..1000 {
                assert_eq!(next(&mut messages).await.unwrap().unwrap(), n);
                // Dropped half-way, or not: no value is lost.
                let first = match pin!(next(&mut values)).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(value) => value,
                    Poll::Pending => None,
                };
                let value = if first.is_some() { first } else { next(&mut values).await };
                assert_eq!(value.unwrap().unwrap(), n);
            }
            assert!(next(&mut messages).await.is_none() && next(&mut values).await.is_none());
            writer.join().unwrap();
        })
    });
}

#[test]
fn results_come_as_a_stream_however_late_the_input_is() {
    with_each(|| {
        Box::pin(async {
            let pool = Pool::new(2).unwrap();
            for options in [CallOptions::new(), CallOptions::new().chunksize(1), CallOptions::new().buffersize(7)] {
                let mut squares = pool.with(options).imap(|x: u64| x * x, 0..500).unwrap().into_stream();
                for n in 0..500 {
                    assert_eq!(next(&mut squares).await.unwrap().unwrap(), n * n);
                }
                assert!(next(&mut squares).await.is_none());
            }
            let mut any = pool.imap_unordered(|x: u64| x + 1, 0..300).unwrap().into_stream().indexed();
            let mut seen = [false; 300];
            while let Some((index, result)) = next(&mut any).await {
                assert_eq!(result.unwrap(), index as u64 + 1);
                assert!(!std::mem::replace(&mut seen[index], true));
            }
            assert!(seen.iter().all(|&seen| seen));
            // An input that supplies the next item when the result of the last one was taken.
            let taken = Arc::new(AtomicUsize::new(0));
            let seen = taken.clone();
            let input = (0..20u64).inspect(move |&n| {
                while seen.load(Ordering::SeqCst) < n as usize {
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let mut late = pool.imap(|x: u64| x, input).unwrap().into_stream();
            for n in 0..20 {
                assert_eq!(next(&mut late).await.unwrap().unwrap(), n);
                taken.store(n as usize + 1, Ordering::SeqCst);
            }
            assert!(next(&mut late).await.is_none());
        })
    });
}

#[test]
fn a_stream_that_is_dropped_cancels_and_one_that_fails_goes_on() {
    let _alive = watchdog();
    let pool = Pool::new(1).unwrap();
    let endless = pool
        .imap(
            |x: u64| {
                assert!(x != 1, "one");
                x
            },
            0..,
        )
        .unwrap();
    let mut stream = endless.into_stream();
    assert_eq!(block_on(next(&mut stream)).unwrap().unwrap(), 0);
    assert!(block_on(next(&mut stream)).unwrap().is_err());
    assert_eq!(block_on(next(&mut stream)).unwrap().unwrap(), 2);
    drop(stream);
    assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
}

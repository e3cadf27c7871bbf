//! What travels: large buffers, and values that cannot.

use crate::support::{METHODS, pool, watchdog};
use maniple::{Bulk, Bytes, CallOptions, Error, Pool};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Picture {
    name: String,
    pixels: Bulk<f32>,
    mask: Bytes,
}

fn brighten(mut picture: Picture) -> Picture {
    picture.pixels.iter_mut().for_each(|p| *p += 1.0);
    picture
}

#[test]
fn large_and_small_buffers_travel_both_ways_and_can_be_changed() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        for size in [0, 1, 1000, 100_000, 3_000_000] {
            let picture = Picture { name: "n".into(), pixels: vec![1.0; size].into(), mask: vec![7; size].into() };
            let back = pool.apply(brighten, picture.clone()).unwrap();
            assert_eq!(back.pixels.len(), size);
            assert!(back.pixels.iter().all(|&p| p == 2.0) && back.mask == picture.mask);
        }
    }
}

#[test]
fn many_large_buffers_in_one_call() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let items = (0..200u8).map(|i| Bytes::from(vec![i; 100_000]));
    let back = pool.map(|b: Bytes| b, items).unwrap();
    assert_eq!(back.len(), 200);
    assert!(back.iter().zip(0u8..).all(|(b, i)| b.len() == 100_000 && b.iter().all(|&x| x == i)));
    let sums = pool.map(|b: Bytes| b.iter().map(|&x| u64::from(x)).sum::<u64>(), back).unwrap();
    assert!(sums.iter().zip(0u64..).all(|(s, i)| *s == i * 100_000));
}

#[test]
fn one_value_with_very_many_large_buffers() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let many = |n: usize| vec![Bytes::from(vec![1; 40_000]); n];
    assert_eq!(pool.apply(|v: Vec<Bytes>| v.len(), many(1000)).unwrap(), 1000);
    assert_eq!(pool.apply(|v: Vec<Bytes>| v, many(3000)).unwrap(), many(3000));
    assert_eq!(pool.apply(|v: Vec<Bytes>| v.len(), many(2)).unwrap(), 2);
}

#[test]
fn a_long_text_travels_too() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let text = "maniple ".repeat(500_000);
    assert_eq!(pool.apply(|t: String| t, text.clone()).unwrap(), text);
}

#[test]
fn a_buffer_as_state_is_seen_by_all_workers() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let table: Bulk<u64> = (0..1_000_000).collect();
    let picked = pool
        .with(CallOptions::new().chunksize(1))
        .map_with(&table, |table, i: usize| table[i], (0..1000).map(|i| i * 1000))
        .unwrap();
    assert!(picked.into_iter().eq((0..1000).map(|i| i * 1000)));
}

#[test]
fn results_outlive_the_pool() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let mut back = pool.apply(|b: Bytes| b, Bytes::from(vec![3; 1 << 20])).unwrap();
    drop(pool);
    back[7] = 4;
    assert_eq!(back.into_vec()[6..9], [3, 4, 3]);
}

/// A number whose odd values do not travel.
macro_rules! fragile {
    ($name:ident, $encode:expr, $decode:expr) => {
        #[derive(Debug, PartialEq)]
        struct $name(u32);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let refuses: fn(u32) -> bool = $encode;
                if refuses(self.0) {
                    return Err(serde::ser::Error::custom("odd"));
                }
                s.serialize_u32(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let refuses: fn(u32) -> bool = $decode;
                let number = u32::deserialize(d)?;
                if refuses(number) { Err(serde::de::Error::custom("odd")) } else { Ok($name(number)) }
            }
        }
    };
}

fragile!(NotEncoded, |n| n % 2 == 1, |_| false);
fragile!(NotDecoded, |_| false, |n| n % 2 == 1);
fragile!(PanicsEncoding, |n| if n % 2 == 1 { panic!("odd") } else { false }, |_| false);
fragile!(PanicsDecoding, |_| false, |n| if n % 2 == 1 { panic!("odd") } else { false });

fn check<T: std::fmt::Debug>(results: Vec<maniple::Result<T>>, number: fn(&T) -> u32) {
    assert_eq!(results.len(), 100);
    for (i, result) in (0..).zip(results) {
        match result {
            Ok(value) => assert!(i % 2 == 0 && number(&value) == i, "{i}: {value:?}"),
            Err(error) => assert!(i % 2 == 1 && error.to_string().contains("coded"), "{i}: {error}"),
        }
    }
}

#[test]
fn an_argument_that_cannot_be_sent_fails_alone() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let sent = pool.with(CallOptions::new().chunksize(10)).imap(|n: NotEncoded| n.0, (0..100).map(NotEncoded)).unwrap();
    check(sent.collect(), |n| *n);
    let sent = pool
        .with(CallOptions::new().chunksize(10))
        .imap(|n: PanicsEncoding| n.0, (0..100).map(PanicsEncoding))
        .unwrap();
    check(sent.collect(), |n| *n);
    assert!(matches!(pool.apply(|n: NotEncoded| n.0, NotEncoded(1)), Err(Error::Codec { what: "encoded", .. })));
    assert!(matches!(pool.map(|n: NotEncoded| n.0, [NotEncoded(2), NotEncoded(1)]), Err(Error::Codec { .. })));
    assert_eq!(pool.map(|n: NotEncoded| n.0, [NotEncoded(2)]).unwrap(), [2]);
}

#[test]
fn an_argument_that_the_worker_cannot_read_fails_alone() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        let sent =
            pool.with(CallOptions::new().chunksize(10)).imap(|n: NotDecoded| n.0, (0..100).map(NotDecoded)).unwrap();
        check(sent.collect(), |n| *n);
        let sent = pool
            .with(CallOptions::new().chunksize(10))
            .imap(|n: PanicsDecoding| n.0, (0..100).map(PanicsDecoding))
            .unwrap();
        check(sent.collect(), |n| *n);
        let error = pool.apply(|n: NotDecoded| n.0, NotDecoded(1)).unwrap_err().to_string();
        assert!(error.contains("NotDecoded") && error.contains("decoded"), "{error}");
    }
}

#[test]
fn a_result_that_cannot_be_sent_fails_alone() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    check(pool.with(CallOptions::new().chunksize(10)).imap(NotEncoded, 0..100).unwrap().collect(), |n| n.0);
    check(pool.with(CallOptions::new().chunksize(10)).imap(PanicsEncoding, 0..100).unwrap().collect(), |n| n.0);
    assert!(pool.apply(NotEncoded, 1).is_err());
    assert_eq!(pool.apply(NotEncoded, 2).unwrap(), NotEncoded(2));
}

#[test]
fn a_result_that_the_caller_cannot_read_fails_alone() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    check(pool.with(CallOptions::new().chunksize(10)).imap(NotDecoded, 0..100).unwrap().collect(), |n| n.0);
    check(pool.with(CallOptions::new().chunksize(10)).imap(PanicsDecoding, 0..100).unwrap().collect(), |n| n.0);
    assert!(matches!(pool.apply(NotDecoded, 1), Err(Error::Codec { what: "decoded", .. })));
    assert!(pool.map(NotDecoded, 0..10).is_err());
    assert_eq!(pool.apply(NotDecoded, 2).unwrap(), NotDecoded(2));
}

#[test]
fn a_state_that_the_worker_cannot_read_fails_its_call_alone() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    assert!(pool.map_with(&NotEncoded(1), |s, n: u32| s.0 + n, [1]).is_err());
    assert!(pool.map_with(&NotDecoded(1), |s, n: u32| s.0 + n, [1, 2]).is_err());
    assert!(pool.map_with(&PanicsDecoding(1), |s, n: u32| s.0 + n, [1, 2]).is_err());
    assert_eq!(pool.map_with(&NotDecoded(2), |s, n: u32| s.0 + n, [1, 2]).unwrap(), [3, 4]);
}

#[test]
fn a_type_without_a_fixed_form_says_why_it_cannot_travel() {
    let _dog = watchdog();
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u32),
        Text(String),
    }
    let pool = Pool::new(1).unwrap();
    let size = |e: Either| match e {
        Either::Number(n) => n as usize,
        Either::Text(t) => t.len(),
    };
    let error = pool.map(size, [Either::Number(1), Either::Text("x".into())]).unwrap_err().to_string();
    assert!(error.contains("untagged"), "{error}");
}

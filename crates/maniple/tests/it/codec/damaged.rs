//! Encoded values that are damaged or nested without an end are errors; no process panics or ends because of them.

use super::*;

/// Each byte changed in some ways, each length, and some bytes moved.
fn damaged(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let one = |at: usize, to: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = to;
        bytes
    };
    let changed = (0..bytes.len()).flat_map(move |at| {
        [0, 1, 2, 0x7f, 0x80, 0xff, bytes[at].wrapping_add(1), bytes[at] ^ 0x80].map(|to| one(at, to))
    });
    let cut = (0..bytes.len()).map(|len| bytes[..len].to_vec());
    let without = (0..bytes.len()).map(|at| [&bytes[..at], &bytes[at + 1..]].concat());
    changed.chain(cut).chain(without)
}

#[test]
fn damaged_bytes_are_an_error_or_some_value_and_never_a_panic() {
    let _dog = watchdog();
    fn all<T: Payload>(value: &T) {
        let mut bytes = Vec::new();
        Postcard::encode(value, &mut bytes).unwrap();
        for bytes in damaged(&bytes) {
            if let Err(error) = Postcard::decode::<T>(&mut &bytes[..]) {
                assert!(!error.to_string().contains("panicked"), "{error}: {bytes:?}");
            }
        }
    }
    let plain = Skips { id: 1, rest: vec![2, 5, 6], ..Skips::default() };
    all(&Skips { inner: vec![plain.clone(), plain.clone()], last: Some(Box::new(plain)), ..Skips::default() });
    all(&vec![Shape::Unit, Shape::Pair(2, 3), Shape::Fields { a: None, b: 4 }, Shape::Renamed(vec![Shape::Last])]);
    all(&(vec![(), ()], vec![Nothing; 3], BTreeMap::from([((1u8, Some(2i128)), "x".to_string())]), Adjacent::New(1)));
    all(&(Three(1, 0, 2), Some(Some('x')), [1.5f64; 2], Ok::<u8, String>(3)));
}

#[derive(Debug, Serialize, Deserialize)]
struct Chain(u8, Option<Box<Chain>>);

/// The bytes of a chain of so many links: to make one would take as much of the stack as to read it.
fn chain(links: usize) -> Vec<u8> {
    let mut short = Vec::new();
    Postcard::encode(&Chain(7, None), &mut short).unwrap();
    let (head, tail) = short.split_at(3);
    assert_eq!(head, [2, 7, 0]);
    let mut bytes = [2, 7, 1].repeat(links - 1);
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(tail);
    bytes
}

#[test]
fn nesting_without_an_end_is_an_error_and_not_the_end_of_the_process() {
    let deep = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        let mut links = 0;
        let mut next = Some(Box::new(Postcard::decode::<Chain>(&mut &chain(1000)[..]).unwrap()));
        while let Some(chain) = next {
            (links, next) = (links + 1, chain.1);
        }
        assert_eq!(links, 1000);
        for links in [1002, 1_000_000] {
            let error = Postcard::decode::<Chain>(&mut &chain(links)[..]).unwrap_err();
            assert!(error.to_string().contains("nested lists"), "{error}");
        }
    });
    deep.unwrap().join().unwrap();
}

#[test]
fn items_without_bytes_are_not_counted_for_ever() {
    let mut bytes = Vec::new();
    Postcard::encode(&vec![vec![(); 3]; 2], &mut bytes).unwrap();
    let tail = bytes.split_off(bytes.len() - 4);
    assert_eq!(bytes, [2, 3, 3]);
    // Forty lists, each of which says that it has 2^32 - 1 items.
    let mut bomb = vec![40];
    bomb.extend([0xff, 0xff, 0xff, 0xff, 0x0f].repeat(40));
    bomb.extend_from_slice(&tail);
    assert!(Postcard::decode::<Vec<Vec<()>>>(&mut &bomb[..]).is_err());
    let many = vec![vec![(); 1_000_000]; 50];
    let mut bytes = Vec::new();
    Postcard::encode(&many, &mut bytes).unwrap();
    assert_eq!(Postcard::decode::<Vec<Vec<()>>>(&mut &bytes[..]).unwrap(), many);
}

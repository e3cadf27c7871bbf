//! Values, arrays, memory and lists that processes share; with Python where there is one; and that nothing of them is
//! left.

use crate::support::{kill_self, watchdog};
use maniple::{
    Array, Cause, Error, Exit, Payload, Poison, Process, RawArray, RawValue, ShareableItem, ShareableList,
    SharedMemory, Value,
};
use maniple_sys::testing::{self, Signal};
#[cfg(not(windows))]
use std::process::Command;

fn started<A: Payload>(f: fn(A), argument: A) -> Process {
    let process = Process::new(f, argument).unwrap();
    process.start().unwrap();
    process
}

fn run<A: Payload>(f: fn(A), argument: A) {
    assert_eq!(started(f, argument).join().unwrap(), Exit::Code(0));
}

/// A name that no other test and no other run has.
fn name(what: &str) -> String {
    format!("maniple-test-{what}-{}", std::process::id())
}

/// Whether memory has this name.
fn is_there(name: &str) -> bool {
    SharedMemory::open(name).is_ok()
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Particle {
    place: [f64; 3],
    charge: i64,
}

// SAFETY: numbers of one size, so there is no room between them, and any bits will do.
unsafe impl bytemuck::Zeroable for Particle {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Particle {}

#[test]
fn structs_and_lists_of_any_size_are_shared() {
    let _dog = watchdog();
    let particle = Particle { place: [1.0, 2.0, 3.0], charge: -1 };
    let (one, big) = (Value::new(particle).unwrap(), Value::new([7u8; 5000]).unwrap());
    let (few, many) = (Array::from_slice(&[particle; 3]).unwrap(), Array::<u16>::new(100_000).unwrap());
    assert!(Array::<u8>::new(0).unwrap().lock().unwrap().is_empty());
    run(
        |(one, big, few, many): (Value<Particle>, Value<[u8; 5000]>, Array<Particle>, Array<u16>)| {
            one.lock().unwrap().charge = 5;
            assert_eq!(big.get().unwrap(), [7; 5000]);
            big.lock().unwrap()[4999] = 8;
            few.set(2, one.get().unwrap()).unwrap();
            assert!(many.lock().unwrap().iter().all(|&n| n == 0));
            many.lock().unwrap().fill(3);
        },
        (one.clone(), big.clone(), few.clone(), many.clone()),
    );
    assert_eq!(one.get().unwrap(), Particle { charge: 5, ..particle });
    assert_eq!((big.get().unwrap()[4998], big.get().unwrap()[4999]), (7, 8));
    assert_eq!(few.to_vec().unwrap(), [particle, particle, one.get().unwrap()]);
    assert_eq!(many.to_vec().unwrap(), vec![3; 100_000]);
    assert_eq!((few.len(), few.get(3).unwrap()), (3, None));
    assert!(matches!(few.set(3, particle), Err(Error::SharedMemory(_))));
    assert!(matches!(Array::<u64>::new(usize::MAX), Err(Error::SharedMemory(_))));
}

#[test]
fn an_array_whose_holder_was_killed_says_so() {
    let _dog = watchdog();
    let array = Array::<u64>::new(1000).unwrap();
    let holder = started(
        |array: Array<u64>| {
            let mut guard = array.lock().unwrap();
            guard[..500].fill(1);
            kill_self(Signal::KILL);
        },
        array.clone(),
    );
    assert_eq!(holder.join().unwrap(), Exit::Killed(Cause::KILL));
    let mut error = array.lock().unwrap_err();
    assert_eq!(error.poison(), Poison::Died(holder.pid().unwrap()));
    assert_eq!(error.get_mut().iter().sum::<u64>(), 500);
    error.get_mut().fill(0);
    array.clear_poison();
    drop(error);
    assert_eq!(array.to_vec().unwrap(), vec![0; 1000]);
}

#[test]
fn raw_values_change_as_a_whole_and_no_change_is_lost() {
    let _dog = watchdog();
    let (count, pair) = (RawValue::new(0u32).unwrap(), RawValue::new([0u32; 2]).unwrap());
    let work = |(count, pair): (RawValue<u32>, RawValue<[u32; 2]>)| {
        for n in 0..20_000 {
            count.fetch_update(|n| n + 1);
            pair.set([n, !n]);
            let [a, b] = pair.get();
            assert_eq!(a, !b);
        }
    };
    let both = [started(work, (count.clone(), pair.clone())), started(work, (count.clone(), pair.clone()))];
    assert!(both.iter().all(|process| process.join().unwrap() == Exit::Code(0)));
    assert_eq!(count.get(), 40_000);
    assert_eq!((count.swap(1), count.compare_exchange(2, 3), count.compare_exchange(1, 3)), (40_000, Err(1), Ok(1)));
    let (tiny, float) = (RawValue::new(true as u8).unwrap(), RawValue::new(-1.5f32).unwrap());
    assert_eq!((tiny.get(), float.get()), (1, -1.5));
}

#[test]
fn raw_arrays_are_had_element_by_element_or_as_a_slice() {
    let _dog = watchdog();
    let (shorts, points) = (RawArray::<i16>::new(3).unwrap(), RawArray::<[f64; 3]>::new(2000).unwrap());
    run(
        |(shorts, points): (RawArray<i16>, RawArray<[f64; 3]>)| {
            shorts.set(2, -7).unwrap();
            // SAFETY: no other process looks before this one has ended.
            let points = unsafe { points.as_mut_slice() };
            points[1999] = [1.0, 2.0, 3.0];
        },
        (shorts.clone(), points.clone()),
    );
    assert_eq!((shorts.get(2), shorts.get(3), shorts.len()), (Some(-7), None, 3));
    assert!(matches!(shorts.set(3, 0), Err(Error::SharedMemory(_))));
    // SAFETY: the other process has ended.
    assert_eq!(unsafe { points.as_slice() }[1999], [1.0, 2.0, 3.0]);
}

#[test]
fn memory_is_read_and_written_within_its_bounds() {
    let _dog = watchdog();
    let memory = SharedMemory::new(10_000).unwrap();
    run(
        |memory: SharedMemory| {
            memory.write(1, &[1; 100]).unwrap();
            memory.write(5000, &[2; 5000]).unwrap();
            assert!(memory.write(5001, &[2; 5000]).is_err() && memory.write(usize::MAX, &[1]).is_err());
        },
        memory.clone(),
    );
    let mut bytes = vec![9; 10_000];
    memory.read(0, &mut bytes).unwrap();
    assert!(bytes[0] == 0 && bytes[1..101] == [1; 100] && bytes[101..5000].iter().all(|&b| b == 0));
    assert_eq!(bytes[5000..], [2; 5000]);
    // SAFETY: the other process has ended.
    assert_eq!(unsafe { memory.as_slice() }, bytes);
    assert!(memory.read(10_000, &mut [0]).is_err() && memory.read(10_000, &mut []).is_ok());
    assert!(SharedMemory::new(0).is_err());
}

#[test]
fn a_name_lasts_as_long_as_its_makers_handles() {
    let _dog = watchdog();
    let name = name("lasts");
    let made = SharedMemory::create(&name, 100).unwrap();
    assert_eq!(made.name(), Some(&*name));
    assert!(SharedMemory::create(&name, 100).unwrap_err().to_string().contains("in use"));
    run(
        |(sent, name): (SharedMemory, String)| {
            let found = SharedMemory::open(&name).unwrap();
            sent.write(99, b"x").unwrap();
            let mut byte = [0];
            found.read(99, &mut byte).unwrap();
            assert_eq!((byte, found.len(), sent.name()), (*b"x", 100, Some(&*name)));
        },
        (made.clone(), name.clone()),
    );
    assert!(is_there(&name), "a process that only uses it does not take its name away");
    let clone = made.clone();
    drop(made);
    assert!(is_there(&name));
    drop(clone);
    assert!(!is_there(&name));
    assert!(SharedMemory::open(&name).unwrap_err().to_string().contains("none of that name"));
    for impossible in ["", "/", "a/b", "a\0b"] {
        assert!(matches!(SharedMemory::create(impossible, 1), Err(Error::SharedMemory(_))), "{impossible:?}");
    }
}

#[test]
fn a_name_can_be_kept_and_taken_away_and_is_not_taken_from_others() {
    let name = name("kept");
    let made = SharedMemory::create(&name, 1).unwrap();
    made.keep();
    // A name of Windows ends with the last handle that was opened by it.
    let another = cfg!(windows).then(|| SharedMemory::open(&name).unwrap());
    drop(made);
    let found = SharedMemory::open(&name).unwrap();
    drop(another);
    found.unlink().unwrap();
    assert!(found.unlink().is_err() && SharedMemory::new(1).unwrap().unlink().is_err());
    let first = SharedMemory::create(&name, 1).unwrap();
    // Another program removes the name and uses it again.
    maniple_sys::named::unlink(&name).unwrap();
    let second = SharedMemory::create(&name, 2).unwrap();
    drop(first);
    assert!(is_there(&name));
    drop(second);
    assert!(!is_there(&name));
}

// A name of Windows ends with the last handle that was opened by it.
#[cfg(not(windows))]
#[test]
fn a_name_whose_maker_was_killed_stays_until_somebody_takes_it_away() {
    let _dog = watchdog();
    let name = name("orphan");
    let maker = started(
        |name: String| {
            let _made = SharedMemory::create(&name, 9).unwrap();
            kill_self(Signal::KILL);
        },
        name.clone(),
    );
    assert_eq!(maker.join().unwrap(), Exit::Killed(Cause::KILL));
    SharedMemory::open(&name).unwrap().unlink().unwrap();
    assert!(!is_there(&name));
}

#[test]
fn what_is_guarded_for_one_is_not_raw_for_another() {
    let _dog = watchdog();
    let refused =
        |text: &str| assert!(text.contains("could not be decoded") && text.contains("another type"), "{text}");
    let (reader, writer) = std::io::pipe().unwrap();
    // A struct whose field is sent as one type and arrives as another.
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Wrong(#[serde(serialize_with = "as_value")] RawValue<u64>);
    fn as_value<S: serde::Serializer>(_: &RawValue<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&Value::new(7u64).unwrap(), serializer)
    }
    let process = Process::builder().stderr(writer).build(|_: Wrong| (), Wrong(RawValue::new(1).unwrap())).unwrap();
    process.start().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(1));
    drop(process);
    refused(&std::io::read_to_string(reader).unwrap());
}

#[test]
fn they_are_handles_for_all_threads() {
    fn is<T: Clone + Send + Sync + Payload + std::fmt::Debug>() {}
    is::<(Value<f32>, Array<f32>, RawValue<f32>, RawArray<f32>, SharedMemory, ShareableList)>();
}

fn mixed() -> Vec<ShareableItem> {
    let text = |text: &str| ShareableItem::from(text);
    vec![
        true.into(),
        false.into(),
        i64::MIN.into(),
        0.1.into(),
        text(""),
        text("a text"),
        text("Grüße, 8 Byte"),
        vec![1u8, 0, 255].into(),
        Vec::<u8>::new().into(),
        None::<bool>.into(),
        vec![7u8; 3000].into(),
    ]
}

#[test]
fn a_list_holds_what_was_put_in_and_refuses_what_does_not_fit() {
    let _dog = watchdog();
    let list = ShareableList::new(mixed()).unwrap();
    assert_eq!((list.to_vec().unwrap(), list.len()), (mixed(), 11));
    run(
        |list: ShareableList| {
            assert_eq!(list.to_vec().unwrap(), mixed());
            list.set(0, "seven b").unwrap();
            list.set(5, 5).unwrap();
            list.set(10, "short").unwrap();
        },
        list.clone(),
    );
    assert_eq!((list.get(0).unwrap(), list.get(5).unwrap()), ("seven b".into(), 5.into()));
    assert_eq!(list.get(10).unwrap(), "short".into());
    assert!(list.set(5, "more than eight").unwrap_err().to_string().contains("does not fit"));
    let text = list.set(5, "more than eight").unwrap_err().to_string();
    assert!(text.contains("which was made with 8 bytes and keeps that size"), "{text}");
    assert!(matches!((list.get(11), list.set(11, 1)), (Err(Error::SharedMemory(_)), Err(Error::SharedMemory(_)))));
    assert!(ShareableList::new(Vec::<bool>::new()).unwrap().is_empty());
}

#[test]
fn what_is_no_list_is_not_taken_for_one() {
    let name = name("no-list");
    for start in [&[0xff; 64][..], &[3, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 9], b"text"] {
        let memory = SharedMemory::create(&name, 64).unwrap();
        memory.write(0, start).unwrap();
        let table: Vec<u8> = (1..8u64).flat_map(|n| (u64::MAX / n).to_ne_bytes()).collect();
        assert!(ShareableList::open(&name).is_err() || start.len() == 8);
        memory.write(8, &table).unwrap();
        assert!(matches!(ShareableList::open(&name), Err(Error::SharedMemory(_))), "{start:?}");
    }
}

#[cfg(not(windows))]
/// Runs a program in Python; `None` where there is no Python.
fn python(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new("python3").arg("-c").arg(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no python3 here to share a list with");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

// The standard package's names of memory are others than ours on Windows.
#[cfg(not(windows))]
#[test]
fn python_reads_and_changes_a_list_of_ours() {
    let _dog = watchdog();
    let name = name("for-python");
    let list = ShareableList::create(&name, mixed()).unwrap();
    // The standard package's tracker removes every name that a process has opened, unless the name is unregistered.
    let program = "
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import ShareableList
shared = ShareableList(name=sys.argv[1])
resource_tracker.unregister(shared.shm._name, 'shared_memory')
print(list(shared) == [True, False, -2**63, 0.1, '', 'a text', 'Gr\\u00fc\\u00dfe, 8 Byte', bytes([1, 0, 255]), b'', None, b'\\7' * 3000])
shared[0], shared[2], shared[3], shared[5], shared[9], shared[10] = None, -1, 1e300, '\\u20ac', True, b'bytes'
shared.shm.close()
";
    let Some(said) = python(program, &[&name]) else { return };
    assert_eq!(said.trim(), "True");
    let now: Vec<_> = [0, 2, 3, 5, 9, 10].map(|index| list.get(index).unwrap()).into();
    let bytes = ShareableItem::from(&b"bytes"[..]);
    assert_eq!(now, [None::<bool>.into(), (-1).into(), 1e300.into(), "€".into(), true.into(), bytes]);
}

// The standard package's names of memory are others than ours on Windows.
#[cfg(not(windows))]
#[test]
fn a_list_of_pythons_is_read_and_changed() {
    let _dog = watchdog();
    let name = name("of-python");
    let make = "
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import ShareableList
shared = ShareableList([True, 5, -0.5, 'text', b'by\\0tes', None, 'x' * 100], name=sys.argv[1])
resource_tracker.unregister(shared.shm._name, 'shared_memory')
shared.shm.close()
";
    if python(make, &[&name]).is_none() {
        return;
    }
    let list = ShareableList::open(&name).unwrap();
    let bytes = ShareableItem::from(&b"by\0tes"[..]);
    let long = "x".repeat(100);
    let expected = [true.into(), 5.into(), (-0.5).into(), "text".into(), bytes, None::<bool>.into(), (&*long).into()];
    assert_eq!(list.to_vec().unwrap(), expected);
    list.set(0, 1.5).unwrap();
    list.set(1, false).unwrap();
    list.set(3, "ändert").unwrap();
    list.set(5, "eight bt").unwrap();
    list.set(6, vec![1u8, 2]).unwrap();
    let look = "
import sys
from multiprocessing.shared_memory import ShareableList
shared = ShareableList(name=sys.argv[1])
print(ascii(list(shared)))
shared.shm.close()
shared.shm.unlink()
";
    let said = python(look, &[&name]).unwrap();
    assert_eq!(said.trim(), "[1.5, False, -0.5, '\\xe4ndert', b'by\\x00tes', 'eight bt', b'\\x01\\x02']");
    assert!(!is_there(&name));
}

fn state() -> (usize, usize, Vec<String>) {
    let named = ["memory", "list"].map(|what| format!("maniple-test-{what}-own-{}", std::process::id()));
    let named = named.into_iter().filter(|name| is_there(name)).collect();
    (testing::handles(), testing::shared_memory("maniple-").0, named)
}

#[test]
fn nothing_is_left_of_them() {
    let _dog = watchdog();
    // In a process of its own: the others have shared memory as well.
    run(
        |()| {
            let own = |what: &str| format!("maniple-test-{what}-own-{}", std::process::id());
            let use_them = || {
                let memory = SharedMemory::create(&own("memory"), 10_000).unwrap();
                let list = ShareableList::create(&own("list"), mixed()).unwrap();
                let nameless = (SharedMemory::new(10_000).unwrap(), ShareableList::new(mixed()).unwrap());
                let values = (Value::new(1).unwrap(), Array::<u8>::new(9999).unwrap(), RawArray::<u8>::new(1).unwrap());
                type All =
                    ((SharedMemory, ShareableList), (SharedMemory, ShareableList), Value<i32>, Array<u8>, RawArray<u8>);
                let (value, array, raw) = values.clone();
                let killed = started(
                    |(named, nameless, value, array, raw): All| {
                        std::mem::forget((named, nameless, raw, value.lock(), array.lock()));
                        kill_self(Signal::KILL);
                    },
                    ((memory.clone(), list.clone()), nameless.clone(), value, array, raw),
                );
                assert_eq!(killed.join().unwrap(), Exit::Killed(Cause::KILL));
                assert!(values.0.lock().is_err() && values.1.lock().is_err());
            };
            use_them();
            let before = state();
            (0..3).for_each(|_| use_them());
            assert_eq!(state(), before);
            assert_eq!((before.1, before.2), (0, vec![]));
        },
        (),
    );
}

fn with_zeros() -> Vec<ShareableItem> {
    let mut long = vec![1u8; 1_000_003];
    long[1_000_002] = 0;
    let bytes = [&b"\0"[..], b"a\0\0", b"eight by\0", b"12345678", b"\0middle"];
    let mut items: Vec<ShareableItem> = bytes.into_iter().map(Into::into).collect();
    items.extend(["text\0".into(), "ü\0".into(), long.into()]);
    items
}

#[test]
fn zeros_at_the_end_of_an_item_are_kept() {
    let _dog = watchdog();
    let list = ShareableList::new(with_zeros()).unwrap();
    assert_eq!(list.to_vec().unwrap(), with_zeros());
    list.set(3, "no zero").unwrap();
    list.set(0, "1\0").unwrap();
    list.set(7, &b"short\0"[..]).unwrap();
    assert_eq!((list.get(3).unwrap(), list.get(0).unwrap()), ("no zero".into(), "1\0".into()));
    assert_eq!(list.get(7).unwrap(), b"short\0"[..].into());
    list.set(7, "none").unwrap();
    list.set(0, "").unwrap();
    assert_eq!((list.get(7).unwrap(), list.get(0).unwrap()), ("none".into(), "".into()));
}

// The standard package's names of memory are others than ours on Windows.
#[cfg(not(windows))]
#[test]
fn python_reads_items_with_zeros_and_replaces_them() {
    let _dog = watchdog();
    let name = name("zeros");
    let list = ShareableList::create(&name, with_zeros()).unwrap();
    let program = "
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import ShareableList
shared = ShareableList(name=sys.argv[1])
resource_tracker.unregister(shared.shm._name, 'shared_memory')
print(list(shared)[:7])
shared[0], shared[1], shared[2], shared[5], shared[6] = b'8 bytes!', 'abcd', 5, 'texts', b'u'
shared.shm.close()
";
    let Some(said) = python(program, &[&name]) else { return };
    assert_eq!(said.trim(), r"[b'', b'a', b'eight by', b'12345678', b'\x00middle', 'text', 'ü']");
    let now: Vec<_> = [0, 1, 2, 5, 6].map(|index| list.get(index).unwrap()).into();
    assert_eq!(now, [b"8 bytes!"[..].into(), "abcd".into(), 5.into(), "texts".into(), b"u"[..].into()]);
}

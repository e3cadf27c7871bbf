//! With all attributes of serde, a value arrives as it was sent, or there is an error; it is never another value.

mod damaged;

use crate::support::{LONG, watchdog};
use maniple::{Codec, Error, Exit, Manager, Payload, Pool, Postcard, Process, Queue, channel, pipe};
use serde::de::DeserializeOwned;
use serde::ser::{SerializeSeq, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::Duration;

fn shared() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(1).unwrap())
}

fn both<T: Serialize, U: DeserializeOwned>(value: &T) -> maniple::Result<U> {
    let mut bytes = Vec::new();
    Postcard::encode(value, &mut bytes)?;
    Postcard::decode(&mut &bytes[..])
}

fn text<T: Debug>(value: T) -> String {
    format!("{value:?}")
}

fn refused<T: Debug>(got: maniple::Result<T>, why: &str) {
    match got {
        Err(error) => assert!(error.to_string().contains(why), "{error}"),
        Ok(value) => panic!("{value:?} instead of an error that says {why:?}"),
    }
}

/// It arrives as it was by each way there is.
#[track_caller]
fn arrives<T: Payload + PartialEq + Debug + Clone>(value: T) {
    assert_eq!(both::<_, T>(&value).unwrap(), value);
    let pool = shared();
    assert_eq!(pool.apply(|x: T| x, value.clone()).unwrap(), value);
    assert_eq!(pool.apply(text::<T>, value.clone()).unwrap(), text(&value));
    assert_eq!(pool.map(|x: T| x, vec![value.clone(); 3]).unwrap(), vec![value.clone(); 3]);
    let list = vec![Some((7u8, value.clone())); 3];
    assert_eq!(pool.apply(|x: Vec<Option<(u8, T)>>| x, list.clone()).unwrap(), list);
    let queue = Queue::new().unwrap();
    queue.put(&value).unwrap();
    assert_eq!(queue.get().unwrap(), value);
    let (a, b) = pipe().unwrap();
    a.send(&value).unwrap();
    assert_eq!(b.recv().unwrap(), value);
}

/// There is an error by each way there is, and what comes after it is right.
#[track_caller]
fn is_refused<T: Payload + Debug + Clone>(value: T, why: &str) {
    refused(both::<_, T>(&value), why);
    let pool = shared();
    refused(pool.apply(|x: T| x, value.clone()), why);
    refused(pool.apply(text::<T>, value.clone()), why);
    refused(pool.map(|x: T| x, vec![value.clone(); 3]), why);
    assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
    let queue = Queue::<T>::new().unwrap();
    if let Err(error) = queue.put(&value) {
        assert!(error.to_string().contains(why), "{error}");
    } else {
        refused(queue.get(), why);
    }
    let (a, b) = pipe::<T>().unwrap();
    if let Err(error) = a.send(&value) {
        assert!(error.to_string().contains(why), "{error}");
    } else {
        refused(b.recv(), why);
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone, Default)]
struct Skips {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
    id: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inner: Vec<Skips>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    rest: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Box<Skips>>,
}

#[test]
fn fields_that_were_left_out_are_left_out() {
    let _dog = watchdog();
    let plain = Skips { id: 1, rest: vec![2, 5, 6], ..Skips::default() };
    arrives(plain.clone());
    let full = Skips {
        first: Some(3),
        inner: vec![plain.clone(), Skips { name: "n".into(), ..plain.clone() }, plain.clone()],
        name: "name".into(),
        last: Some(plain.clone().into()),
        ..plain.clone()
    };
    arrives(full.clone());
    arrives(vec![plain.clone(), full.clone(), plain.clone(), full.clone()]);
    arrives(Skips { inner: vec![full.clone(), plain.clone()], last: Some(full.clone().into()), ..plain.clone() });
    arrives(BTreeMap::from([(1u8, plain.clone()), (2, full.clone())]));
    arrives(Skips { rest: vec![9; 200_000], ..plain });
    // Every combination of fields, in one value.
    let all = (0..32u8).map(|bits| Skips {
        first: (bits & 1 > 0).then_some(bits),
        id: bits,
        inner: vec![full.clone(); usize::from(bits >> 1 & 1)],
        name: "x".repeat(usize::from(bits >> 2 & 1)),
        rest: vec![0; usize::from(bits >> 3 & 1)],
        last: (bits & 16 > 0).then(|| full.clone().into()),
    });
    arrives(all.collect::<Vec<_>>());
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
enum Shape {
    #[serde(skip)]
    #[allow(dead_code)]
    Never,
    Unit,
    New(u8),
    Pair(u8, u16),
    #[serde(skip_deserializing)]
    #[allow(dead_code)]
    NeverEither,
    Fields {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        b: u8,
    },
    #[serde(rename = "Other", alias = "Another")]
    Renamed(Vec<Shape>),
    Last,
}

#[test]
fn variants_are_told_by_their_names() {
    let _dog = watchdog();
    let all = [
        Shape::Unit,
        Shape::New(1),
        Shape::Pair(2, 3),
        Shape::Fields { a: None, b: 4 },
        Shape::Fields { a: Some(5), b: 6 },
        Shape::Last,
    ];
    all.clone().into_iter().for_each(arrives);
    arrives(Shape::Renamed(all.to_vec()));
    arrives(all.iter().map(|shape| Ok(shape.clone())).chain([Err(Shape::Last)]).collect::<Vec<Result<_, _>>>());
    is_refused(Shape::Never, "cannot be serialized");
    is_refused(Shape::NeverEither, "NeverEither");
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone, Default)]
#[serde(default, rename_all = "camelCase")]
struct Odd {
    #[serde(alias = "old", alias = "older")]
    one_name: u8,
    #[serde(rename = "two")]
    another: u16,
    #[serde(skip)]
    never: u8,
    #[serde(skip_serializing)]
    not_written: u8,
    with_default: Option<u8>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
#[serde(tag = "kind", content = "of")]
enum Adjacent {
    Unit,
    New(u8),
    Pair(u8, u8),
    Fields { a: u8, b: Option<u8> },
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
#[serde(from = "u16", into = "u16")]
struct Converted(u8);

impl From<u16> for Converted {
    fn from(value: u16) -> Self {
        Converted(value as u8)
    }
}

impl From<Converted> for u16 {
    fn from(value: Converted) -> Self {
        value.0.into()
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
#[serde(transparent)]
struct Transparent {
    inner: u8,
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Empty {}

#[derive(Serialize, Deserialize, Debug, PartialEq, Eq, Clone, Hash, PartialOrd, Ord)]
struct Nothing;

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Three(u8, #[serde(skip)] u8, u8);

#[test]
fn other_attributes_and_types_do_as_everywhere() {
    let _dog = watchdog();
    arrives(Odd { one_name: 1, another: 2, with_default: Some(3), ..Odd::default() });
    arrives(Odd::default());
    [Adjacent::Unit, Adjacent::New(1), Adjacent::Pair(2, 3)].into_iter().for_each(arrives);
    arrives((Converted(1), Transparent { inner: 2 }, Empty {}, Nothing, Three(1, 0, 2)));
    arrives(vec![None, Some(None), Some(Some(None)), Some(Some(Some(1u8)))]);
    arrives((Some(()), Some(Nothing), None::<()>, vec![(); 5], Some(Empty {})));
    arrives((i128::MIN, u128::MAX, i64::MIN, u64::MAX, i8::MIN, 'ß', '\u{10ffff}', f32::MIN_POSITIVE, -0.0f64));
    arrives(BTreeMap::from([((1u8, Some(2i128)), Nothing), ((1, None), Nothing)]));
    arrives(HashMap::from([(vec![1u8], HashSet::from([Nothing]))]));
    arrives((Duration::from_nanos(1_000_000_001), 1..5u8, std::time::SystemTime::UNIX_EPOCH, [[1u8; 3]; 2]));
    arrives((Box::<str>::from("x"), Box::<[u8]>::from([1]), std::path::PathBuf::from("/")));
    let nan = f64::from_bits(0x7ff8_0000_0000_1234);
    assert_eq!(shared().apply(|x: f64| x, nan).unwrap().to_bits(), nan.to_bits());
}

#[derive(Serialize, Deserialize, Debug, Clone)]
struct Bare(#[serde(skip_serializing_if = "Option::is_none")] Option<u8>, u8, u8);

#[derive(Serialize, Deserialize, Debug, Clone)]
enum BareVariant {
    Of(u8, #[serde(skip_serializing_if = "Option::is_none")] Option<u8>, u8),
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[allow(dead_code)]
struct Unread {
    #[serde(skip_deserializing)]
    unread: u8,
    #[serde(skip_serializing, default)]
    unwritten: u8,
    last: u8,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
struct TwoNames {
    #[serde(rename(serialize = "written", deserialize = "read"))]
    a: u8,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[allow(dead_code)]
struct NoDefault {
    #[serde(skip_serializing)]
    a: u8,
    b: u8,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
struct Flat {
    a: u8,
    #[serde(flatten)]
    more: HashMap<String, u8>,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
    Text(String),
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(tag = "kind")]
enum Internal {
    A { x: u8 },
    B,
}

#[test]
fn what_cannot_arrive_as_it_was_is_an_error() {
    let _dog = watchdog();
    is_refused(Bare(None, 1, 2), "written with 2 fields and is read with 3");
    assert_eq!(text(shared().apply(|x: Bare| x, Bare(Some(1), 2, 3)).unwrap()), text(Bare(Some(1), 2, 3)));
    is_refused(BareVariant::Of(1, None, 2), "written with 2 fields and is read with 3");
    is_refused(Unread { unread: 1, unwritten: 2, last: 3 }, "`unread` is written, and not read");
    is_refused(TwoNames { a: 1 }, "`written` is written, and not read");
    is_refused(NoDefault { a: 1, b: 2 }, "missing field `a`");
    is_refused(Flat { a: 1, more: HashMap::from([("b".into(), 2)]) }, "flatten");
    is_refused(Untagged::Number(1), "untagged");
    is_refused(Untagged::Text("x".into()), "untagged");
    is_refused(Internal::A { x: 1 }, "internally tagged");
    is_refused(Internal::B, "internally tagged");
    is_refused(Adjacent::Fields { a: 1, b: None }, "internally tagged");
}

/// Says 3 and has 2.
#[derive(Debug, Clone)]
struct Miscounts;

impl Serialize for Miscounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(3))?;
        seq.serialize_element(&1u8)?;
        seq.serialize_element(&2u8)?;
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Miscounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|_| Miscounts)
    }
}

/// Writes more than it reads.
#[derive(Debug, Clone)]
struct Disagrees;

impl Serialize for Disagrees {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&1u8)?;
        tuple.serialize_element(&2u8)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Disagrees {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(|_| Disagrees)
    }
}

#[test]
fn implementations_that_disagree_are_an_error() {
    let _dog = watchdog();
    is_refused(Miscounts, "a wrong number of items");
    is_refused(Disagrees, "left over");
}

#[test]
fn both_ends_have_to_mean_the_same_type() {
    let _dog = watchdog();
    let (a, b) = pipe::<u64>().unwrap();
    let b = b.cast::<u32, Postcard>();
    a.send(&7).unwrap();
    refused(b.recv(), "another type");
    b.send(&7).unwrap();
    refused(a.recv(), "another type");
    let (a, b) = (a.cast::<(), Postcard>(), b.cast::<Nothing, Postcard>());
    a.send(&()).unwrap();
    refused(b.recv(), "another type");
    // What comes after it is not harmed.
    let b = b.cast::<(), Postcard>();
    a.send(&()).unwrap();
    b.recv().unwrap();
}

#[test]
fn what_is_borrowed_arrives_as_what_is_owned() {
    let _dog = watchdog();
    let (a, b) = pipe::<(&str, &[u8])>().unwrap();
    let b = b.cast::<(String, Vec<u8>), Postcard>();
    a.send(&("x", &[1, 2])).unwrap();
    assert_eq!(b.recv().unwrap(), ("x".into(), vec![1, 2]));
}

#[test]
fn states_initializers_processes_and_managers_take_them_too() {
    let _dog = watchdog();
    let skips = Skips { id: 1, rest: vec![2, 5, 6], ..Skips::default() };
    let seen = shared().map_with(&skips, |state: &Skips, _: u8| text(state), [1, 2]).unwrap();
    assert_eq!(seen, [text(&skips), text(&skips)]);

    static KEPT: OnceLock<Skips> = OnceLock::new();
    let keep = |skips: Skips| KEPT.set(skips).unwrap();
    let pool = Pool::builder().processes(1).initializer(keep, skips.clone()).build().unwrap();
    assert_eq!(pool.apply(|()| KEPT.get().cloned(), ()).unwrap(), Some(skips.clone()));
    let keep = |_: Bare| ();
    let broken = Pool::builder().processes(1).initializer(keep, Bare(None, 1, 2)).build();
    refused(broken.and_then(|pool| pool.apply(|()| (), ())), "written with 2 fields");

    let (told, tells) = channel::<(String, Skips)>().map(|(tell, told)| (told, tell)).unwrap();
    let process = Process::new(
        |(skips, tell): (Skips, maniple::Sender<_>)| tell.send(&(text(&skips), skips)),
        (skips.clone(), tells),
    );
    let process = process.unwrap();
    process.start().unwrap();
    assert_eq!(told.recv().unwrap(), (text(&skips), skips.clone()));
    process.join().unwrap();
    let process = Process::new(|_: Bare| (), Bare(None, 1, 2)).unwrap();
    process.start().unwrap();
    assert_ne!(process.join_timeout(LONG).unwrap().unwrap(), Exit::Code(0));

    let manager = Manager::new().unwrap();
    let list = manager.list::<Skips>().unwrap();
    list.push(&skips).unwrap();
    assert_eq!(list.get(0).unwrap(), Some(skips));
    let list = manager.list::<Bare>().unwrap();
    refused(list.push(&Bare(None, 1, 2)), "written with 2 fields");
}

#[test]
fn a_function_may_give_an_error_of_such_a_type() {
    let _dog = watchdog();
    fn fails(id: u8) -> Result<u8, Skips> {
        Err(Skips { id, ..Skips::default() })
    }
    assert_eq!(shared().apply(fails, 3).unwrap(), Err(Skips { id: 3, ..Skips::default() }));
    assert!(matches!(
        shared().apply(|_: u8| -> Skips { panic!("as it is") }, 3),
        Err(Error::Panicked(panicked)) if panicked.message == "as it is"
    ));
}

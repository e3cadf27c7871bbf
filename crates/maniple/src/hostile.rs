//! Feeds another process's bytes to the parsers of this crate, as the engine's module of this name does for the
//! engine's parsers. Ordinary builds do not contain it.
#![allow(clippy::unwrap_used)]

use crate::bulk::Bytes;
use crate::chunk::Input;
use crate::codec::{Codec, Part, Postcard, fingerprint_of};
use crate::sideband::{self, Sink, Source};
use maniple_engine::shm::buffers::Buffer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A parser's name, and the function that feeds it.
pub type Target = (&'static str, fn(&[u8]));

/// All parsers.
pub const TARGETS: [Target; 3] = [("values", values), ("answers", answers), ("json", json)];

/// The number of bytes of address space that suffice for any input of some kilobytes, with any lengths in it.
#[cfg(test)]
const MEMORY: u64 = 1 << 30;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Plain {
    number: u32,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    perhaps: Option<i64>,
    #[serde(default)]
    items: Vec<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Kind {
    Nothing,
    One(u8),
    Two(char, f32),
    Named { a: bool, b: Box<Plain> },
    More(Vec<Kind>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Tree {
    name: String,
    below: Vec<Tree>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Chain(u8, Option<Box<Chain>>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Empty;

/// Reads `body` as a `T`. A value that was read is written and read again, and must be the same.
fn value<T: Serialize + DeserializeOwned>(body: &[u8], named: bool) {
    let tail = fingerprint_of::<T>() | if named { 1 << 31 } else { 0 };
    let bytes = [body, &tail.to_le_bytes()].concat();
    let mut rest = &bytes[..];
    let mut source = Source::with([vec![1; 70_000], vec![2; 3]].map(Buffer::from_vec), Vec::new());
    let Ok(value) = sideband::decode::<Postcard, T>(&mut rest, &mut source) else { return };
    assert!(rest.is_empty());
    let (once, mut parts) = written(&value).unwrap();
    let again = sideband::decode::<Postcard, T>(&mut &once[..], &mut parts).unwrap();
    // The order of a HashMap is arbitrary.
    assert_eq!(written(&again).unwrap().0.len(), once.len());
}

fn written<T: Serialize>(value: &T) -> crate::Result<(Vec<u8>, Source)> {
    let (mut bytes, mut sink) = (Vec::new(), Sink::parts());
    sideband::encode::<Postcard, T>(value, &mut bytes, &mut sink)?;
    Ok((bytes, Source::with(sink.take_parts().into_iter().map(Buffer::from_vec), Vec::new())))
}

fn values(data: &[u8]) {
    let Some((what, body)) = data.split_first() else { return };
    let named = what & 0x80 != 0;
    match what & 0x7f {
        0 => value::<u64>(body, named),
        1 => value::<(bool, i8, i128, f64, char)>(body, named),
        2 => value::<String>(body, named),
        3 => value::<Vec<u8>>(body, named),
        4 => value::<Vec<()>>(body, named),
        5 => value::<Vec<Vec<Empty>>>(body, named),
        6 => value::<Plain>(body, named),
        7 => value::<Kind>(body, named),
        8 => value::<Tree>(body, named),
        9 => value::<Chain>(body, named),
        10 => value::<HashMap<String, Vec<Option<u32>>>>(body, named),
        11 => value::<BTreeMap<u8, Plain>>(body, named),
        12 => value::<Result<Duration, [u16; 3]>>(body, named),
        13 => value::<Vec<(Plain, Kind)>>(body, named),
        14 => value::<Vec<[(); 3]>>(body, named),
        15 => value::<Bytes>(body, named),
        16 => value::<(Bytes, Option<Bytes>)>(body, named),
        17 => value::<std::net::SocketAddr>(body, named),
        18 => value::<std::path::PathBuf>(body, named),
        _ => value::<Option<Option<()>>>(body, named),
    }
}

/// The answer of a pool's worker, and the other payloads.
fn answers(data: &[u8]) {
    let Some((what, body)) = data.split_first() else { return };
    // Each item takes at least a byte.
    let most = body.len() + 1;
    let mut input = Input::plain(body);
    match what % 4 {
        0 => chunk::<Plain>(&mut input, most),
        1 => chunk::<u64>(&mut input, most),
        2 => {
            let Ok(_) = input.identity() else { return };
            while let Ok(item) = input.item::<Kind>() {
                drop(item);
            }
        }
        _ => {
            let _ = input.choice();
            while let Ok(part) = input.part::<String>() {
                drop(part);
            }
        }
    }
    let _ = Part::decode::<Vec<Kind>>(&mut &body[..]);
}

fn chunk<T: DeserializeOwned + 'static>(input: &mut Input<'_>, most: usize) {
    let Ok(_task) = input.task() else { return };
    let Ok(count) = input.chunk::<T>() else { return };
    for number in 0..count as usize {
        assert!(number <= most, "more values than have room");
        match input.outcome::<T>() {
            Ok(outcome) => drop(outcome),
            Err(_) => return,
        }
    }
}

/// Messages of a program in another language.
#[cfg(feature = "json")]
fn json(data: &[u8]) {
    use crate::Json;
    let _ = Json::decode::<Plain>(&mut &data[..]);
    let _ = Json::decode::<Vec<Kind>>(&mut &data[..]);
    let _ = Json::decode::<Chain>(&mut &data[..]);
    let Ok(tree) = Json::decode::<Tree>(&mut &data[..]) else { return };
    let mut once = Vec::new();
    Json::encode(&tree, &mut once).unwrap();
    let again = Json::decode::<Tree>(&mut &once[..]).unwrap();
    let mut twice = Vec::new();
    Json::encode(&again, &mut twice).unwrap();
    assert_eq!(once, twice);
}

#[cfg(not(feature = "json"))]
fn json(_: &[u8]) {}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
// The engine tests its other fields.
#[allow(unsafe_code, dead_code)]
mod replay;

#[cfg(test)]
mod tests {
    use super::{MEMORY, TARGETS, replay};

    #[test]
    fn inputs_that_were_of_interest_once_are_harmless() {
        replay::replay("hostile::tests::inputs_that_were_of_interest_once_are_harmless", &TARGETS, MEMORY);
    }
}

//! Plain values to pickles.

use super::{LEAST_APART, SHORT, op};
use crate::arrays::{self, Array, Content};
use crate::walk::{Container, Form, Walk};
use pyo3::prelude::*;

/// Longer strings are left to pickle, which copies them once less.
const LONGEST_TEXT: usize = 16 * 1024;
/// So are arrays, whose bytes are not apart.
const LONGEST_ARRAY: usize = 64 * 1024;

/// Returns the pickle of a value, and the bytes of its large arrays: of arrays that have at least `apart` bytes.
/// `apart` is called only if the answer matters. `None` if the value is not plain, or its pickle is long.
pub fn dump(value: &Bound<'_, PyAny>, apart: &dyn Fn() -> usize) -> Option<(Vec<u8>, Vec<Content>)> {
    let done = |writer: &mut Writer<'_>| Walk::default().value(value.as_borrowed(), writer) && writer.put(&[op::STOP]);
    written(value.py(), apart, done)
}

fn written(
    py: Python<'_>,
    apart: &dyn Fn() -> usize,
    write: impl Fn(&mut Writer<'_>) -> bool,
) -> Option<(Vec<u8>, Vec<Content>)> {
    let mut writer = Writer { py, out: Vec::with_capacity(96), apart, large: Vec::new() };
    writer.out.extend_from_slice(&[op::PROTO, 4]);
    let mut done = write(&mut writer);
    if !done && arrays::is_found(py) {
        writer.out.truncate(2);
        writer.large.clear();
        done = write(&mut writer);
    }
    if !writer.large.is_empty() {
        writer.out[1] = 5;
    }
    done.then_some((writer.out, writer.large))
}

/// Returns the pickle of a tuple of these items; `None` if an item is not plain, or the pickle is long.
pub fn dump_tuple(py: Python<'_>, items: &[Borrowed<'_, '_, PyAny>]) -> Option<Vec<u8>> {
    let done = |writer: &mut Writer<'_>| {
        writer.tuple(items.len(), false)
            && Walk::default().items(items, 0, writer)
            && writer.end(Container::Tuple, items.len(), false)
            && writer.put(&[op::STOP])
    };
    written(py, &|| usize::MAX, done).map(|(pickle, _)| pickle)
}

struct Writer<'a> {
    py: Python<'a>,
    out: Vec<u8>,
    apart: &'a dyn Fn() -> usize,
    large: Vec<Content>,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> bool {
        // If there is no memory, the value is left to pickle, which raises the error.
        let has_room = self.out.capacity() - self.out.len() >= bytes.len() || self.out.try_reserve(bytes.len()).is_ok();
        if has_room {
            self.out.extend_from_slice(bytes);
        }
        has_room && self.out.len() <= SHORT
    }

    fn sized(&mut self, short: u8, long: u8, bytes: &[u8], kept: bool) -> bool {
        let head = match u8::try_from(bytes.len()) {
            Ok(len) => self.put(&[short, len]),
            Err(_) => bytes.len() <= LONGEST_TEXT && self.put(&[long]) && self.put(&(bytes.len() as u32).to_le_bytes()),
        };
        head && self.put(bytes) && self.kept(kept)
    }

    fn kept(&mut self, kept: bool) -> bool {
        !kept || self.put(&[op::MEMOIZE])
    }
}

impl Form for Writer<'_> {
    fn none(&mut self) -> bool {
        self.put(&[op::NONE])
    }

    fn truth(&mut self, is: bool) -> bool {
        self.put(&[if is { op::TRUE } else { op::FALSE }])
    }

    fn int(&mut self, number: i64) -> bool {
        if let Ok(n) = u8::try_from(number) {
            self.put(&[op::INT1, n])
        } else if let Ok(n) = u16::try_from(number) {
            let [a, b] = n.to_le_bytes();
            self.put(&[op::INT2, a, b])
        } else if let Ok(n) = i32::try_from(number) {
            self.put(&[op::INT4]) && self.put(&n.to_le_bytes())
        } else {
            self.put(&[op::LONG1, 8]) && self.put(&number.to_le_bytes())
        }
    }

    fn float(&mut self, number: f64) -> bool {
        self.put(&[op::FLOAT]) && self.put(&number.to_be_bytes())
    }

    fn text(&mut self, utf8: &[u8], kept: bool) -> bool {
        self.sized(op::STR1, op::STR4, utf8, kept)
    }

    fn bytes(&mut self, bytes: &[u8], kept: bool) -> bool {
        self.sized(op::BYTES1, op::BYTES4, bytes, kept)
    }

    fn array(&mut self, array: Array, kept: bool) -> bool {
        let Some(numpy) = arrays::known(self.py) else { return false };
        let shape = |writer: &mut Self| {
            let mut lengths = array.shape().iter().map(|len| i64::try_from(*len));
            writer.put(&[op::MARK])
                && lengths.all(|len| len.is_ok_and(|len| writer.int(len)))
                && writer.put(&[op::TUPLE])
        };
        let (order, is_fortran) = if array.layout.is_fortran { (b'F', op::TRUE) } else { (b'C', op::FALSE) };
        let len = array.content.bytes().len();
        if len >= LEAST_APART && len >= (self.apart)() {
            // As NumPy's own pickles: the result of its function for the buffer, with kind, shape and order.
            let is_written = self.put(&numpy.apart)
                && self.put(numpy.dtype(array.layout.kind))
                && shape(self)
                && self.put(&[op::STR1, 1, order, op::TUPLE, op::REDUCE])
                && self.kept(kept);
            self.large.push(array.content);
            return is_written;
        }
        if len > LONGEST_ARRAY {
            return false;
        }
        // An empty array, then its state: version, shape, kind, order and bytes.
        self.put(&numpy.within)
            && self.kept(kept)
            && self.put(&[op::MARK, op::INT1, 1])
            && shape(self)
            && self.put(numpy.dtype(array.layout.kind))
            && self.put(&[is_fortran, op::BYTES4])
            && self.put(&(len as u32).to_le_bytes())
            && self.put(array.content.bytes())
            && self.put(&[op::TUPLE, op::BUILD])
    }

    fn number(&mut self, kind: u8, bytes: &[u8], kept: bool) -> bool {
        let Some(numpy) = arrays::known(self.py) else { return false };
        self.put(&numpy.single)
            && self.put(numpy.dtype(kind))
            && self.put(&[op::BYTES1, bytes.len() as u8])
            && self.put(bytes)
            && self.put(&[op::TUPLE2, op::REDUCE])
            && self.kept(kept)
    }

    fn again(&mut self, place: u32) -> bool {
        match u8::try_from(place) {
            Ok(place) => self.put(&[op::GET1, place]),
            Err(_) => self.put(&[op::GET4]) && self.put(&place.to_le_bytes()),
        }
    }

    fn list(&mut self, len: usize, kept: bool) -> bool {
        len < SHORT && self.put(&[op::LIST]) && self.kept(kept) && (len == 0 || self.put(&[op::MARK]))
    }

    fn dict(&mut self, len: usize, kept: bool) -> bool {
        len < SHORT && self.put(&[op::DICT]) && self.kept(kept) && (len == 0 || self.put(&[op::MARK]))
    }

    fn tuple(&mut self, len: usize, _: bool) -> bool {
        len <= 3 || len < SHORT && self.put(&[op::MARK])
    }

    fn end(&mut self, container: Container, len: usize, kept: bool) -> bool {
        match (container, len) {
            (Container::List | Container::Dict, 0) => true,
            (Container::List, _) => self.put(&[op::APPENDS]),
            (Container::Dict, _) => self.put(&[op::SET_ITEMS]),
            (Container::Tuple, 0) => self.put(&[op::NO_TUPLE]),
            (Container::Tuple, 1) => self.put(&[op::TUPLE1]) && self.kept(kept),
            (Container::Tuple, 2) => self.put(&[op::TUPLE2]) && self.kept(kept),
            (Container::Tuple, 3) => self.put(&[op::TUPLE3]) && self.kept(kept),
            (Container::Tuple, _) => self.put(&[op::TUPLE]) && self.kept(kept),
        }
    }

    fn ints(&mut self, numbers: &[i64]) -> bool {
        numbers.iter().all(|number| self.int(*number))
    }

    fn floats(&mut self, numbers: &[f64]) -> bool {
        numbers.iter().all(|number| self.float(*number))
    }

    fn same(&mut self) -> bool {
        false
    }

    fn mixed(&mut self) -> bool {
        true
    }
}

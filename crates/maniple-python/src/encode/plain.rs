//! Plain values in a payload.

use super::{Encoder, HEAD, Large};
use crate::arrays::Array;
use crate::payload_format::{items, tag};
use crate::walk::{Container, Form};
use maniple_engine::pool::MOST_BLOBS;
use maniple_engine::pool::policy::BLOB_FROM;

impl Form for Encoder<'_> {
    fn none(&mut self) -> bool {
        self.short(&[tag::NONE])
    }

    fn truth(&mut self, is: bool) -> bool {
        self.short(&[if is { tag::TRUE } else { tag::FALSE }])
    }

    fn int(&mut self, number: i64) -> bool {
        if !self.has_room(HEAD) {
            return false;
        }
        if let Ok(number) = i8::try_from(number) {
            self.out.extend_from_slice(&[tag::INT1, number as u8]);
        } else if let Ok(number) = i32::try_from(number) {
            self.out.push(tag::INT4);
            self.out.extend_from_slice(&number.to_le_bytes());
        } else {
            self.out.push(tag::INT);
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        true
    }

    fn float(&mut self, number: f64) -> bool {
        let has_room = self.has_room(HEAD);
        if has_room {
            self.out.push(tag::FLOAT);
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        has_room
    }

    fn text(&mut self, utf8: &[u8], kept: bool) -> bool {
        if !self.has_room(HEAD + utf8.len()) {
            return false;
        }
        if kept {
            self.out.push(tag::KEPT);
        }
        if let Ok(len) = u8::try_from(utf8.len()) {
            self.out.extend_from_slice(&[tag::STR1, len]);
        } else if !self.begin(tag::STR, utf8.len()) {
            return false;
        }
        self.out.extend_from_slice(utf8);
        true
    }

    fn bytes(&mut self, bytes: &[u8], kept: bool) -> bool {
        if kept && !self.short(&[tag::KEPT]) {
            return false;
        }
        if bytes.len() >= BLOB_FROM && self.blobs.len() + self.large.len() < MOST_BLOBS {
            self.large.push(Large::Bytes(bytes));
            return self.short(&[tag::BLOB]);
        }
        if !(self.has_room(HEAD + bytes.len()) && self.begin(tag::BYTES, bytes.len())) {
            return false;
        }
        self.out.extend_from_slice(bytes);
        true
    }

    fn array(&mut self, array: Array, kept: bool) -> bool {
        if !self.writes_more() || kept && !self.short(&[tag::KEPT]) {
            return false;
        }
        self.has_arrays = true;
        let lengths = array.shape();
        let bytes = array.content.bytes();
        if !self.has_room(HEAD + 8 * lengths.len()) {
            return false;
        }
        self.out.extend_from_slice(&[tag::ARRAY, array.layout.code(), lengths.len() as u8]);
        lengths.iter().for_each(|len| self.out.extend_from_slice(&(*len as u64).to_le_bytes()));
        if bytes.len() >= BLOB_FROM && self.blobs.len() + self.large.len() < MOST_BLOBS {
            self.out.push(tag::BLOB);
            self.large.push(Large::Array(array.content));
            return true;
        }
        if !(self.has_room(HEAD + bytes.len()) && self.begin(tag::BYTES, bytes.len())) {
            return false;
        }
        self.out.extend_from_slice(bytes);
        true
    }

    fn number(&mut self, kind: u8, bytes: &[u8], kept: bool) -> bool {
        if !self.writes_more() || kept && !self.short(&[tag::KEPT]) || !self.has_room(HEAD + bytes.len()) {
            return false;
        }
        self.has_arrays = true;
        self.out.extend_from_slice(&[tag::NUMBER, kind, bytes.len() as u8]);
        self.out.extend_from_slice(bytes);
        true
    }

    fn again(&mut self, place: u32) -> bool {
        match u8::try_from(place) {
            Ok(place) => self.short(&[tag::AGAIN1, place]),
            Err(_) => self.begin(tag::AGAIN, place as usize),
        }
    }

    fn list(&mut self, len: usize, kept: bool) -> bool {
        self.container(tag::LIST, len, kept)
    }

    fn tuple(&mut self, len: usize, kept: bool) -> bool {
        (!kept || self.short(&[tag::KEPT])) && self.begin(tag::TUPLE, len)
    }

    fn dict(&mut self, len: usize, kept: bool) -> bool {
        self.container(tag::DICT, len, kept)
    }

    fn end(&mut self, _: Container, _: usize, _: bool) -> bool {
        true
    }

    fn ints(&mut self, numbers: &[i64]) -> bool {
        let (low, high) = numbers.iter().fold((0, 0), |(low, high), &n| (n.min(low), n.max(high)));
        let width = match low.min(!high) {
            -0x80..=0 => 1,
            -0x8000..=0 => 2,
            -0x8000_0000..=0 => 4,
            _ => 8,
        };
        if !self.has_room(1 + width * numbers.len()) {
            return false;
        }
        self.out.push(width as u8);
        match width {
            1 => self.out.extend(numbers.iter().map(|n| *n as u8)),
            2 => numbers.iter().for_each(|n| self.out.extend_from_slice(&(*n as i16).to_le_bytes())),
            4 => numbers.iter().for_each(|n| self.out.extend_from_slice(&(*n as i32).to_le_bytes())),
            _ => numbers.iter().for_each(|n| self.out.extend_from_slice(&n.to_le_bytes())),
        }
        true
    }

    fn floats(&mut self, numbers: &[f64]) -> bool {
        let has_room = self.has_room(1 + 8 * numbers.len());
        if has_room {
            self.out.push(items::FLOATS);
            numbers.iter().for_each(|n| self.out.extend_from_slice(&n.to_le_bytes()));
        }
        has_room
    }

    fn same(&mut self) -> bool {
        self.short(&[items::SAME])
    }

    fn mixed(&mut self) -> bool {
        self.short(&[items::MIXED])
    }
}

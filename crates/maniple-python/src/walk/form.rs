//! What a walk calls: the interface between the walk over a value and the format that is written.

use crate::arrays::Array;

#[derive(Clone, Copy)]
pub enum Container {
    List,
    Tuple,
    Dict,
}

/// How plain values are written. What returns a bool returns false to leave the whole value to pickle.
pub trait Form {
    fn none(&mut self) -> bool;
    fn truth(&mut self, is: bool) -> bool;
    fn int(&mut self, number: i64) -> bool;
    fn float(&mut self, number: f64) -> bool;
    /// `kept`: [`Form::again`] may refer to it.
    fn text(&mut self, utf8: &[u8], kept: bool) -> bool;
    fn bytes(&mut self, bytes: &[u8], kept: bool) -> bool;
    fn array(&mut self, array: Array, kept: bool) -> bool;
    /// One of NumPy's single numbers.
    fn number(&mut self, kind: u8, bytes: &[u8], kept: bool) -> bool;
    /// What was kept as number `place`.
    fn again(&mut self, place: u32) -> bool;
    /// A list of `len` items follows.
    fn list(&mut self, len: usize, kept: bool) -> bool;
    /// A tuple of `len` items follows. If it is kept, it is at its end.
    fn tuple(&mut self, len: usize, kept: bool) -> bool;
    /// A dict of `len` pairs follows.
    fn dict(&mut self, len: usize, kept: bool) -> bool;
    /// So it ends.
    fn end(&mut self, container: Container, len: usize, kept: bool) -> bool;
    /// The items of the list or tuple that has begun, all at once. False: they are to be written one by one.
    fn ints(&mut self, numbers: &[i64]) -> bool;
    fn floats(&mut self, numbers: &[f64]) -> bool;
    /// They are one object again and again, which follows. False: as above.
    fn same(&mut self) -> bool;
    /// They are written one by one.
    fn mixed(&mut self) -> bool;
}

//! The interface between the walk over a value and the format that is written.

use crate::arrays::Array;

#[derive(Clone, Copy)]
pub enum Container {
    List,
    Tuple,
    Dict,
}

/// A format for plain values. A method that returns false leaves the whole value to pickle.
pub trait Form {
    fn none(&mut self) -> bool;
    fn truth(&mut self, is: bool) -> bool;
    fn int(&mut self, number: i64) -> bool;
    fn float(&mut self, number: f64) -> bool;
    /// `kept`: a later [`Form::again`] may refer to the text.
    fn text(&mut self, utf8: &[u8], kept: bool) -> bool;
    fn bytes(&mut self, bytes: &[u8], kept: bool) -> bool;
    fn array(&mut self, array: Array, kept: bool) -> bool;
    /// A single number of NumPy's.
    fn number(&mut self, kind: u8, bytes: &[u8], kept: bool) -> bool;
    /// A reference to the object that was kept as number `place`.
    fn again(&mut self, place: u32) -> bool;
    /// A list of `len` items follows.
    fn list(&mut self, len: usize, kept: bool) -> bool;
    /// A tuple of `len` items follows. A kept tuple is kept at its end.
    fn tuple(&mut self, len: usize, kept: bool) -> bool;
    /// A dict of `len` pairs follows.
    fn dict(&mut self, len: usize, kept: bool) -> bool;
    /// The end of a container.
    fn end(&mut self, container: Container, len: usize, kept: bool) -> bool;
    /// All items of the list or tuple that has begun. Returns false if they are to be written separately.
    fn ints(&mut self, numbers: &[i64]) -> bool;
    fn floats(&mut self, numbers: &[f64]) -> bool;
    /// All items are one object, which follows. Returns false if they are to be written separately.
    fn same(&mut self) -> bool;
    /// The items follow separately.
    fn mixed(&mut self) -> bool;
}

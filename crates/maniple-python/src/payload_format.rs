//! The form of a pool's payloads, which [`encode`](crate::encode) writes and [`decode`](crate::decode) reads.
//!
//! ```text
//! value    := NONE | TRUE | FALSE | INT1 i8 | INT4 i32 | INT i64 | FLOAT f64
//!           | STR1 len utf-8 | STR len utf-8 | BYTES len bytes
//!           | BLOB                       (a `bytes` object in the next blob)
//!           | ARRAY layout d length*d (BYTES len bytes | BLOB)
//!           | NUMBER kind n byte*n       (one of NumPy's)
//!           | LIST items | TUPLE items | DICT n (value value)*n
//!           | KEPT value                 (one of the last nine, which may be referred to)
//!           | AGAIN1 place | AGAIN place (what was kept as number `place`)
//!           | PICKLE len stream          (its out-of-band buffers are the blobs that follow)
//! items    := n MIXED value*n | n width integer*n | n FLOATS f64*n | n SAME value (n times the same object)
//! sequence := LEAN items | value         (a value that is a list or tuple)
//!           | NUMPY sequence | NUMPY value (there are arrays in it)
//! call     := APPLY sequence | KEYWORDS value | MAP sequence | STARMAP sequence
//!           | TERMS u64 len stream call  (the soft limit in nanoseconds, and the pickle of exception classes, or nothing)
//!           | SEED byte*24 u64 call      (the pool's seed, the call's number, and the index of the first item in the call)
//! ```
//! Numbers are little-endian. `len` of STR1 and `place` of AGAIN1 have 8 bits. `len` of PICKLE, and the lengths of an
//! array's `d` dimensions, have 64 bits. Every other `len`, `n` and `place` has 32 bits. `d`, `layout`, `kind` and `n`
//! of NUMBER have 8 bits. Lists and dicts are kept before their content, other objects after it. Each value that is not
//! within another value, and each sequence, counts its kept objects from 0.

/// The first bytes of values.
pub mod tag {
    pub const NONE: u8 = b'N';
    pub const TRUE: u8 = b'T';
    pub const FALSE: u8 = b'F';
    pub const INT1: u8 = b'1';
    pub const INT4: u8 = b'4';
    pub const INT: u8 = b'i';
    pub const FLOAT: u8 = b'f';
    pub const STR1: u8 = b'u';
    pub const STR: u8 = b's';
    pub const BYTES: u8 = b'b';
    pub const BLOB: u8 = b'B';
    pub const ARRAY: u8 = b'A';
    pub const NUMBER: u8 = b'#';
    pub const NUMPY: u8 = b'n';
    pub const LIST: u8 = b'[';
    pub const TUPLE: u8 = b'(';
    pub const DICT: u8 = b'{';
    pub const KEPT: u8 = b'K';
    pub const AGAIN1: u8 = b'g';
    pub const AGAIN: u8 = b'G';
    pub const PICKLE: u8 = b'P';
    pub const LEAN: u8 = b'L';
    pub const APPLY: u8 = b'a';
    pub const KEYWORDS: u8 = b'k';
    pub const MAP: u8 = b'm';
    pub const STARMAP: u8 = b'*';
    pub const TERMS: u8 = b't';
    pub const SEED: u8 = b'r';
}

/// The kinds of items. Another byte is the width of integers.
pub mod items {
    pub const MIXED: u8 = 0;
    pub const FLOATS: u8 = b'f';
    pub const SAME: u8 = b'=';
}

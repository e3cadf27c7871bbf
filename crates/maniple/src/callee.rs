//! The names of called functions in errors.

use crate::registered;
use maniple_engine::pool::Name;
use maniple_sys::process::image::symbol;
use std::borrow::Cow;
use std::sync::Arc;

/// The description of a call in errors.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// `map`, `apply`, ...
    pub method: &'static str,
    /// The function.
    pub function: Callee,
}

/// A function that was called.
#[derive(Clone, Debug)]
pub(crate) enum Callee {
    /// A name that the program has registered or requested.
    Named(Cow<'static, str>),
    /// A pointer: its address and type.
    Pointer(usize, &'static str),
}

impl Callee {
    /// The name for statistics, found when they are read.
    pub fn shown(self) -> Name {
        Arc::new(move || self.to_string().into())
    }
}

impl std::fmt::Display for Callee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Callee::Named(name) => f.write_str(name),
            Callee::Pointer(address, kind) => match name_at(*address) {
                Some(name) => f.write_str(&name),
                None => write!(f, "a function of type {kind}"),
            },
        }
    }
}

/// Returns the name of a function of this program: the registered name, or the name of its symbol.
fn name_at(address: usize) -> Option<String> {
    if let Some(name) = registered::name_at(address) {
        return Some(name.to_owned());
    }
    let name = format!("{:#}", rustc_demangle::demangle(&symbol(address)?));
    // A closure is called through a function of the standard library.
    (!name.contains("FnOnce::call_once") && !name.contains("FnOnce<")).then_some(name)
}

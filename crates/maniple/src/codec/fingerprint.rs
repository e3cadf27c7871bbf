//! A number for a type, by which the two ends of a message check that they mean the same type.
//!
//! It is computed from the type's name, because a `TypeId` differs between two builds of a program, and a function that
//! is called by name ([`task`](mod@crate::task)) may be in another build. For the same reason it does not depend on a
//! type's modules. It does not depend on references, `Box`, `Rc`, `Arc` and `Cow`, which serde does not write, or on
//! whether a text or a list is borrowed. So a `String` can be decoded from an encoded `&str`.

use std::any::type_name;
use std::cell::RefCell;

/// The names of recent types, with their numbers: computing a number takes some hundred nanoseconds.
const KEPT: usize = 64;

thread_local! {
    static SEEN: RefCell<[(&'static str, u32); KEPT]> = const { RefCell::new([("", 0); KEPT]) };
}

/// Returns the fingerprint of `T`, of 31 bits.
pub(crate) fn of<T: ?Sized>() -> u32 {
    let name = type_name::<T>();
    // Names are constants, so names at the same address are equal.
    let place = (name.as_ptr().addr() / 4 + name.len()) % KEPT;
    SEEN.with_borrow_mut(|seen| {
        let slot = &mut seen[place];
        if !std::ptr::eq(slot.0, name) {
            *slot = (name, hash(&canonical(name)));
        }
        slot.1
    })
}

/// FNV-1a, folded.
fn hash(text: &str) -> u32 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32) as u32 >> 1 ^ hash as u32 >> 1
}

/// Returns a type's name without the modules of its parts.
pub(crate) fn short(name: &str) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some(at) = rest.find("::") {
        text.push_str(&rest[..at]);
        let module = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        text.truncate(module);
        rest = &rest[at + 2..];
    }
    text + rest
}

/// Replaces the names of types that are encoded alike by one name (see above).
fn canonical(name: &str) -> String {
    let short = short(name);
    let mut out = String::with_capacity(short.len());
    let mut rest = short.as_str();
    // The closing bracket of each open bracket.
    let mut closing: Vec<&str> = Vec::new();
    while let Some(next) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if word > 0 {
            let (this, after) = rest.split_at(word);
            match this {
                "Box" | "Rc" | "Arc" | "Cow" if after.starts_with('<') => {
                    closing.push("");
                    rest = &after[1..];
                    continue;
                }
                "mut" => {}
                "str" => out.push_str("String"),
                "Path" => out.push_str("PathBuf"),
                "OsStr" => out.push_str("OsString"),
                "CStr" => out.push_str("CString"),
                other => out.push_str(other),
            }
            rest = after;
            continue;
        }
        rest = &rest[next.len_utf8()..];
        match next {
            '&' | ' ' => {}
            // A lifetime, which only some compilers write.
            '\'' => {
                rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            '[' if is_list(rest) => {
                out.push_str("Vec<");
                closing.push(">");
            }
            '[' | '<' | '(' => {
                out.push(next);
                closing.push(match next {
                    '[' => "]",
                    '<' => ">",
                    _ => ")",
                });
            }
            // The arrow of a function's type.
            '>' if out.ends_with('-') => out.push(next),
            '>' if out.ends_with('<') => {
                closing.pop();
                out.pop();
            }
            ']' | '>' | ')' => out.push_str(closing.pop().unwrap_or_default()),
            other => out.push(other),
        }
    }
    out
}

/// Returns whether the text after a `[` belongs to a list, and not to an array, which has a length.
fn is_list(rest: &str) -> bool {
    let mut depth = 0;
    for c in rest.chars() {
        match c {
            '[' => depth += 1,
            ']' if depth == 0 => return true,
            ']' => depth -= 1,
            ';' if depth == 0 => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use std::collections::HashMap;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    #[test]
    fn types_are_named_without_their_modules() {
        struct Own;
        assert_eq!(short(type_name::<fn(u8) -> u8>()), "fn(u8) -> u8");
        let long = type_name::<fn((String, Own)) -> Result<Vec<Own>, std::io::Error>>();
        assert!(long.contains("::"), "{long}");
        assert_eq!(short(long), "fn((String, Own)) -> Result<Vec<Own>, Error>");
    }

    #[test]
    fn what_is_encoded_alike_has_one_fingerprint() {
        assert_eq!(of::<&str>(), of::<String>());
        assert_eq!(of::<(&str, &[u8])>(), of::<(String, Vec<u8>)>());
        assert_eq!(of::<[[u8; 3]]>(), of::<Vec<[u8; 3]>>());
        assert_eq!(of::<Option<Cow<'_, str>>>(), of::<Option<Box<String>>>());
        assert_eq!(of::<&mut HashMap<&str, &[Arc<str>]>>(), of::<HashMap<String, Vec<String>>>());
        assert_eq!(of::<&Path>(), of::<PathBuf>());
        assert_eq!(canonical("a::Own<'_>"), "Own");
        assert_eq!(canonical("a::Own<'_, &'static str>"), "Own<String>");
    }

    #[test]
    fn other_types_have_others() {
        let all = [
            of::<u32>(),
            of::<u64>(),
            of::<i32>(),
            of::<()>(),
            of::<(u32,)>(),
            of::<(u32, u32)>(),
            of::<[u32; 2]>(),
            of::<[u32; 3]>(),
            of::<Vec<u32>>(),
            of::<Vec<[u32; 3]>>(),
            of::<Vec<Vec<u32>>>(),
            of::<Option<u32>>(),
            of::<Option<Option<u32>>>(),
            of::<Result<u32, String>>(),
            of::<Result<String, u32>>(),
            of::<fn(u32) -> u32>(),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one), "{i}");
            assert!(*one < 1 << 31);
        }
    }
}

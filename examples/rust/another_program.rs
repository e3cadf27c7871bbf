//! A program whose functions other programs call by their names, in processes of its own file.
//!
//! Started by hand it lists them, and has one of them called as another program would:
//!
//!     cargo run --release -p maniple --example another_program

use maniple::Pool;
use serde::{Deserialize, Serialize};

/// The caller may have a definition of its own; the two must be encoded alike.
#[derive(Debug, Serialize, Deserialize)]
struct Text {
    language: String,
    words: Vec<String>,
}

/// Known as `another_program::longest`.
#[maniple::task]
fn longest(text: Text) -> Option<String> {
    text.words.into_iter().max_by_key(|word| word.chars().count())
}

/// Known as `texts.join`; called with a tuple.
#[maniple::task(name = "texts.join")]
fn join(words: Vec<String>, separator: String) -> String {
    words.join(&separator)
}

/// A whole process: what it returns is its exit code.
#[maniple::task]
fn exit_with(code: i32) -> i32 {
    code
}

/// Known under a name that another one has, too: calling it is an error.
#[maniple::task(name = "twice")]
fn first() {}

#[maniple::task(name = "twice")]
fn second() {}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut names: Vec<_> = maniple::task::names().collect();
    names.sort_unstable();
    println!("known by name: {}", names.join(", "));

    // Any program that links maniple may do this.
    let pool = Pool::builder().processes(1).program(std::env::current_exe()?).build()?;
    let words = vec!["one".to_string(), "three".to_string()];
    println!("joined: {}", pool.apply_named::<_, String>("texts.join", (words.clone(), ", ".to_string()))?);
    // A function that is a task here as well need not be named.
    println!("the longest: {:?}", pool.apply(longest, Text { language: "en".into(), words })?);
    Ok(())
}

//! A conversation with a Python program: it runs on a stock Python and its standard package, and knows nothing of Rust.

use maniple::Listener;
use std::process::Command;

const PROGRAM: &str = r#"
import sys
from multiprocessing.connection import Client

address, key = sys.argv[1:]
with Client(address, authkey=key.encode()) as line:
    while question := line.recv_bytes():
        line.send_bytes(str(eval(question)).encode())
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = "between us";
    let listener = Listener::builder().authkey(key).temporary()?;
    let mut python = Command::new("python3").args(["-c", PROGRAM, &listener.address().to_string(), key]).spawn()?;

    let line = listener.accept::<()>()?;
    for question in ["2 ** 100", "sorted('maniple')"] {
        line.send_bytes(question.as_bytes())?;
        println!("{question} = {}", String::from_utf8(line.recv_bytes()?)?);
    }
    line.send_bytes(b"")?;
    println!("{}", python.wait()?);
    Ok(())
}

//! ipc-channel: channels between processes that one starts oneself; typed (through serde) and raw bytes. A "call" here is a
//! message to one child that answers it.

use crate::case::{Failure, Measured, Peer, WORKERS, sum_of, time_calls, time_echo, time_starts, triple};
use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender, bytes_channel, channel,
};
use std::error::Error;
use std::process::{Child, Command};
use std::time::Instant;

/// The first argument of a child of ours, before what it is to serve and the server's name.
pub const CHILD: &str = "--ipc-child";

pub struct Typed;
pub struct Raw;

type Numbers = (IpcSender<u64>, IpcReceiver<u64>);
type Vectors = (IpcSender<Vec<u8>>, IpcReceiver<Vec<u8>>);
type Bytes = (IpcBytesSender, IpcBytesReceiver);

/// What a child does: connect, hand over its two channels, answer until the parent is gone.
pub fn serve(kind: &str, server: &str) -> Result<(), Box<dyn Error>> {
    match kind {
        "numbers" => {
            let ((to_us, requests), (answers, from_us)) = (channel()?, channel()?);
            IpcSender::<Numbers>::connect(server.into())?.send((to_us, from_us))?;
            while let Ok(number) = requests.recv() {
                answers.send(triple(number))?;
            }
        }
        "sum" => {
            let ((to_us, requests), (answers, from_us)) = (channel()?, channel()?);
            IpcSender::<Numbers>::connect(server.into())?.send((to_us, from_us))?;
            let mut sum = 0;
            while let Ok(number) = requests.recv() {
                sum += number;
            }
            answers.send(sum)?;
        }
        "vectors" => {
            let ((to_us, requests), (answers, from_us)) = (channel()?, channel()?);
            IpcSender::<Vectors>::connect(server.into())?.send((to_us, from_us))?;
            while let Ok(bytes) = requests.recv() {
                answers.send(bytes)?;
            }
        }
        _ => {
            let ((to_us, requests), (answers, from_us)) = (bytes_channel()?, bytes_channel()?);
            IpcSender::<Bytes>::connect(server.into())?.send((to_us, from_us))?;
            while let Ok(bytes) = requests.recv() {
                answers.send(&bytes)?;
            }
        }
    }
    Ok(())
}

fn start_child(kind: &str, server: &str) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?).args([CHILD, kind, server]).spawn()
}

impl Peer for Typed {
    fn call(&self, repeats: usize) -> Measured {
        let (server, name) = IpcOneShotServer::<Numbers>::new()?;
        let mut child = start_child("numbers", &name)?;
        let (_, (requests, answers)) = server.accept()?;
        let taken = time_calls(repeats, |number| {
            requests.send(number)?;
            Ok(answers.recv()?)
        });
        drop(requests);
        child.wait()?;
        taken
    }

    fn echo(&self, size: usize, repeats: usize) -> Measured {
        let (server, name) = IpcOneShotServer::<Vectors>::new()?;
        let mut child = start_child("vectors", &name)?;
        let (_, (requests, answers)) = server.accept()?;
        let call = |bytes| {
            requests.send(bytes)?;
            Ok::<Vec<u8>, Failure>(answers.recv()?)
        };
        let taken = time_echo(size, repeats, |bytes| bytes, call);
        drop(requests);
        child.wait()?;
        taken
    }

    /// Its receivers are for one process.
    fn queue(&self, producers: usize, consumers: usize, items: usize) -> Measured {
        if (producers, consumers) != (1, 1) {
            return Err(Failure::NotOffered("one receiver"));
        }
        let (server, name) = IpcOneShotServer::<Numbers>::new()?;
        let mut child = start_child("sum", &name)?;
        let (_, (requests, answers)) = server.accept()?;
        let begun = Instant::now();
        for number in 0..items as u64 {
            requests.send(number)?;
        }
        drop(requests);
        let sum = answers.recv()?;
        let taken = begun.elapsed();
        child.wait()?;
        if sum != sum_of(items) {
            return Err(Failure::Wrong("what was received is not what was sent".into()));
        }
        Ok(taken / items as u32)
    }

    fn start(&self, repeats: usize) -> Measured {
        time_starts(repeats, || {
            let mut team = Vec::new();
            for _ in 0..WORKERS {
                let (server, name) = IpcOneShotServer::<Numbers>::new()?;
                team.push((start_child("numbers", &name)?, server));
            }
            let mut lines = Vec::new();
            for (child, server) in team {
                lines.push((child, server.accept()?.1));
            }
            lines[0].1.0.send(5)?;
            let answer = lines[0].1.1.recv()?;
            for (mut child, line) in lines {
                drop(line);
                child.wait()?;
            }
            Ok(answer)
        })
    }
}

impl Peer for Raw {
    fn echo(&self, size: usize, repeats: usize) -> Measured {
        let (server, name) = IpcOneShotServer::<Bytes>::new()?;
        let mut child = start_child("bytes", &name)?;
        let (_, (requests, answers)) = server.accept()?;
        let call = |bytes: Vec<u8>| {
            requests.send(&bytes)?;
            Ok::<Vec<u8>, Failure>(answers.recv()?)
        };
        let taken = time_echo(size, repeats, |bytes| bytes, call);
        drop(requests);
        child.wait()?;
        taken
    }
}

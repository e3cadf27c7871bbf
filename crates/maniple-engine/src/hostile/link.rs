//! A link whose other end writes arbitrary bytes: into the shared memory, into the ring as frames, and over the wire.
#![allow(unsafe_code)]

use super::{Script, near};
use crate::pool::link::kind;
use crate::pool::link::reader::Reader;
use crate::pool::link::segment::{DOWN, LinkSegment, UP};
use crate::pool::link::sender::Sender;
use crate::pool::packet::{Packer, Packet};
use crate::shm::inbox::tag;
use crate::shm::ring::{Head, Place, Producer, SKIP};
use crate::shm::slots::{BAY, BLOB_REF, BlobRef, HANDLES, NO_SLOT};
use maniple_sys::wire::Wire;
use maniple_sys::{AsHandle, IntoHandle, OwnedHandle, memory};
use std::sync::atomic::{AtomicU64, Ordering};

const STEPS: usize = 48;

struct Scene {
    segment: LinkSegment,
    reader: Reader,
    sender: Sender,
    wire: Wire,
    // Of the other end.
    peer: Producer,
    far: Wire,
    // The ring into which it writes frames, and the ring of this side's frames.
    theirs: Place,
    ours: Place,
    sent: Vec<u64>,
}

/// An end of a link whose other end misbehaves.
pub fn link(data: &[u8]) {
    let mut script = Script(data);
    let (segment, _handle) = LinkSegment::create().unwrap();
    let hub = script.byte().is_multiple_of(2);
    let ((reader, sender), (theirs, ours)) =
        if hub { (segment.hub_side(), (UP, DOWN)) } else { (segment.worker_side(), (DOWN, UP)) };
    let (wire, far) = Wire::pair().unwrap();
    let peer = Producer::new(segment.memory(), theirs);
    let mut scene = Scene { segment, reader, sender, wire, peer, far, theirs, ours, sent: Vec::new() };
    let packer = Packer::new(1 << 20);
    for _ in 0..STEPS {
        if script.is_over() || !scene.step(&mut script, &packer) {
            break;
        }
    }
    // Every input leads to an end of this side.
    scene.hear(None);
}

impl Scene {
    /// Returns false if the link is damaged; its owner then closes it.
    fn step(&mut self, script: &mut Script<'_>, packer: &Packer) -> bool {
        match script.byte() % 12 {
            0 => self.scribble(script),
            1 => self.overwrite(script),
            2..=5 => self.frame(script),
            6 | 7 => self.note(script),
            8 => return self.hear(Some(if script.byte().is_multiple_of(2) { kind::TASK } else { kind::DONE })),
            9 => return self.hear(None),
            10 => return self.send(script, packer),
            _ => return self.look_about(script),
        }
        true
    }

    fn memory(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at + len <= self.segment.memory().len());
        // SAFETY: inside the mapping.
        unsafe { self.segment.memory().start().as_ptr().add(at) }
    }

    /// One of the words that synchronize the two sides, with an unusual value.
    fn scribble(&self, script: &mut Script<'_>) {
        let words = [
            self.theirs.cursors,
            self.theirs.cursors + 128,
            self.ours.cursors,
            self.ours.cursors + 128,
            crate::pool::link::segment::UP_BAY_AT,
            crate::pool::link::segment::DOWN_BAY_AT,
            crate::pool::link::segment::UP_SLOTS_AT + 8 * (script.byte() as usize % 32),
            crate::pool::link::segment::DOWN_SLOTS_AT + 8 * (script.byte() as usize % 32),
        ];
        let at = words[script.byte() as usize % words.len()];
        // SAFETY: aligned and inside the mapping; the other side uses atomics there, too.
        let word = unsafe { AtomicU64::from_ptr(self.memory(at, 8).cast()) };
        let value = near(script, word.load(Ordering::Relaxed));
        word.store(value, Ordering::Relaxed);
    }

    /// Bytes in the middle of a ring.
    fn overwrite(&self, script: &mut Script<'_>) {
        let place = if script.byte().is_multiple_of(4) { self.ours } else { self.theirs };
        let at = near(script, 0) as usize % place.capacity;
        let len = script.byte() as usize % 64;
        let bytes = script.bytes(len.min(place.capacity - at));
        // SAFETY: inside the mapping. Nothing else runs meanwhile.
        unsafe { self.memory(place.data + at, bytes.len()).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// A well-formed frame with unusual content.
    fn frame(&mut self, script: &mut Script<'_>) {
        const KINDS: [u16; 14] = [1, 2, 3, 4, 16, 17, 18, 19, 20, 21, SKIP, 0, 999, u16::MAX - 1];
        let flag = if script.byte().is_multiple_of(4) { kind::BODY_IN_BLOB } else { 0 };
        let what = KINDS[script.byte() as usize % KINDS.len()] | flag;
        let mut head = Head::new(what, script.odd_number() as u32, script.odd_number());
        let mut body = Vec::new();
        let count = script.byte() as usize % 6;
        for _ in 0..count {
            let slot =
                [BAY, HANDLES, NO_SLOT, script.byte().into(), script.number(2) as u16][script.byte() as usize % 5];
            let place = script.odd_number() as u32;
            body.extend_from_slice(&BlobRef { place, slot, len: script.odd_number() }.encode());
        }
        head.blobs = match script.byte() {
            0..16 => script.number(2) as u16,
            _ => (body.len() / BLOB_REF) as u16,
        };
        let len = script.byte();
        body.extend_from_slice(script.bytes(len.into()));
        let pad = [0, 0, 0, 0, 0, 4096, 30_000, 65_000][script.byte() as usize % 8];
        let pad = vec![0; pad];
        let _ = self.peer.push(head, &[&body, &pad]);
    }

    fn note(&self, script: &mut Script<'_>) {
        let what = [tag::BELL, tag::BLOCK, tag::HANDLES, 2 << 32, u64::from(script.byte()) << 32];
        let tag = what[script.byte() as usize % what.len()] | (script.odd_number() & 0xffff_ffff);
        let handles: Vec<OwnedHandle> = (0..script.byte() % 4)
            .map(|_| match script.byte() {
                0..64 => std::io::pipe().unwrap().0.into_handle(),
                64..96 => memory::create("hostile", 0).unwrap(),
                // A system that provides all of it at once has less.
                96..104 => memory::create("hostile", usize::try_from(1u64 << 46).unwrap_or(usize::MAX))
                    .or_else(|_| memory::create("hostile", 1 << 12))
                    .unwrap(),
                pages => memory::create("hostile", usize::from(pages - 96) * 1000).unwrap(),
            })
            .collect();
        let _ = self.far.send(tag, &handles.iter().map(AsHandle::as_handle).collect::<Vec<_>>());
    }

    fn hear(&mut self, claimed: Option<u16>) -> bool {
        // No frame is shorter than its head, which limits the number of frames in a ring.
        for _ in 0..=self.theirs.capacity / size_of::<Head>() {
            match self.reader.take(claimed, &self.wire) {
                Ok(None) => return true,
                Ok(Some(said)) => {
                    let Ok(incoming) = said.content else { continue };
                    let bytes = incoming.bytes();
                    assert!(bytes.first().into_iter().chain(bytes.last()).count() <= 2);
                    for region in &incoming.regions {
                        let bytes = region.as_slice();
                        assert!(bytes.first().into_iter().chain(bytes.last()).count() <= 2);
                    }
                }
                Err(_) => return false,
            }
        }
        panic!("more frames than have room are heard");
    }

    fn send(&mut self, script: &mut Script<'_>, packer: &Packer) -> bool {
        let sizes = [0, 10, 100, 17_000, 100_000, 200_000];
        let mut blobs = Vec::new();
        for _ in 0..script.byte() % 3 {
            blobs.push(packer.blob(&[&vec![1; sizes[script.byte() as usize % sizes.len()]]]).unwrap());
        }
        let bytes = vec![2; sizes[script.byte() as usize % sizes.len()]];
        let packet: Packet = packer.pack(&bytes, blobs).unwrap();
        match self.sender.send(Head::new(kind::TASK, 1, 2), &packet, &self.wire, packer.arena()) {
            Ok(Ok(position)) => self.sent.push(position),
            Ok(Err(_full)) => {}
            Err(_) => return false,
        }
        true
    }

    fn look_about(&mut self, script: &mut Script<'_>) -> bool {
        if !self.sent.is_empty() {
            let position = self.sent[script.byte() as usize % self.sent.len()];
            let (claimed, revoked) = (self.sender.claimed(position), self.sender.revoke(position));
            assert!(!(claimed && revoked), "a frame that was claimed is taken back");
        }
        self.sender.sweep();
        let _ = self.sender.is_half_full();
        self.sender.trim();
        let _ = self.reader.has_news();
        self.reader.inbox.drain(&self.wire).unwrap_or(false)
    }
}

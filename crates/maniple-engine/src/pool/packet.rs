//! Payloads: short bytes inline, large buffers and handles beside them.

use crate::error::{Error, Result};
use crate::shm::blocks::{Arena, Blob, LONG};
use crate::shm::region::Region;
use maniple_sys::OwnedHandle;
use std::time::Duration;

/// Bytes, without an allocation if they are few.
#[derive(Debug)]
pub enum Bytes {
    /// Up to 38 of them, and how many.
    Short(u8, [u8; SHORT]),
    /// More.
    Long(Box<[u8]>),
}

const SHORT: usize = 38;

impl Bytes {
    /// A copy of `bytes`.
    pub fn copy(bytes: &[u8]) -> Bytes {
        if bytes.len() <= SHORT {
            let mut short = [0; SHORT];
            short[..bytes.len()].copy_from_slice(bytes);
            Bytes::Short(bytes.len() as u8, short)
        } else {
            Bytes::Long(bytes.into())
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Short(n, bytes) => &bytes[..usize::from(*n)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Bytes::Short(0, [0; SHORT])
    }
}

/// A payload ready to be sent.
#[derive(Debug, Default)]
pub struct Packet {
    pub(crate) bytes: Bytes,
    pub(crate) blobs: Vec<Blob>,
    // Handles of the front. The reader receives copies; these are closed when it has the copies.
    pub(crate) handles: Box<[OwnedHandle]>,
    // The first blob is the bytes.
    pub(crate) body_in_blob: bool,
    // The position of its frame in the link's ring, once sent.
    pub(crate) position: u64,
    // Its reader has copies of its handles, which were closed here.
    pub(crate) gave_handles: bool,
}

impl Packet {
    /// The same with these handles, of which the reader gets copies, in this order.
    #[must_use]
    pub fn with_handles(mut self, handles: Vec<OwnedHandle>) -> Packet {
        self.handles = handles.into();
        self
    }

    /// Whether it can be sent again.
    pub(crate) fn is_whole(&self) -> bool {
        !self.gave_handles
    }

    pub(crate) fn holds_handles(&self) -> bool {
        !self.handles.is_empty()
    }

    /// Bytes of content, with those of its large buffers.
    pub fn size(&self) -> usize {
        self.bytes.as_slice().len() + self.blobs.iter().map(Blob::len).sum::<usize>()
    }
}

/// The greatest number of bytes that travel inside a frame; more bytes are a separate buffer.
pub(crate) const INLINE: usize = 16 * 1024;

/// The greatest number of large buffers beside a payload. Each may take a descriptor, and a wire holds only a few
/// hundred notes of them.
pub const MOST_BLOBS: usize = 128;

/// How long memory is kept for later packets.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// Turns bytes and large buffers into packets.
#[derive(Debug, Clone)]
pub struct Packer(Arena);

impl Packer {
    pub(crate) fn new(limit: usize) -> Packer {
        Packer(Arena::new(limit))
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.0
    }

    /// Copies one large buffer.
    ///
    /// # Errors
    /// No memory, or no descriptor.
    pub fn blob(&self, parts: &[&[u8]]) -> Result<Blob> {
        self.0.store(parts)
    }

    /// A packet of `bytes` and the blobs that belong to it, [`MOST_BLOBS`] at most.
    ///
    /// # Errors
    /// No memory, or no descriptor; too many blobs.
    pub fn pack(&self, bytes: &[u8], mut blobs: Vec<Blob>) -> Result<Packet> {
        within(&blobs)?;
        if bytes.len() <= INLINE {
            return Ok(Packet { bytes: Bytes::copy(bytes), blobs, ..Packet::default() });
        }
        let body = self.0.store(&[bytes])?;
        blobs.insert(0, body);
        Ok(Packet { blobs, body_in_blob: true, ..Packet::default() })
    }

    /// As `pack`, of bytes that need not be copied.
    ///
    /// # Errors
    /// As of `pack`.
    pub fn pack_owned(&self, bytes: Vec<u8>, mut blobs: Vec<Blob>) -> Result<Packet> {
        within(&blobs)?;
        if bytes.len() <= INLINE || bytes.len() >= LONG {
            return self.pack(&bytes, blobs);
        }
        blobs.insert(0, Blob::plain(bytes));
        Ok(Packet { blobs, body_in_blob: true, ..Packet::default() })
    }
}

fn within(blobs: &[Blob]) -> Result<()> {
    if blobs.len() > MOST_BLOBS {
        Err(Error::Damaged("a payload with more large buffers than a wire takes"))
    } else {
        Ok(())
    }
}

/// The items that a frame refers to.
#[derive(Debug, Default)]
pub(crate) struct Along {
    pub regions: Vec<Region>,
    pub handles: Vec<OwnedHandle>,
    /// The position of its inline bytes.
    pub inline: usize,
    /// Why a region or some handles are missing.
    pub missing: Option<Error>,
}

/// A payload that arrived.
#[derive(Debug, Default)]
pub struct ReceivedPacket {
    bytes: Bytes,
    body: Option<Region>,
    /// The large buffers, in the order in which they were packed.
    pub regions: Vec<Region>,
    /// The handles, in the order in which they were packed. The last are missing if this process had no descriptors left for them.
    pub handles: Vec<OwnedHandle>,
}

impl ReceivedPacket {
    pub(crate) fn new(bytes: &[u8], along: Along, body_in_blob: bool) -> Result<ReceivedPacket> {
        let Along { mut regions, handles, missing, .. } = along;
        if let Some(error) = missing {
            return Err(error);
        }
        let body = (body_in_blob && !regions.is_empty()).then(|| regions.remove(0));
        Ok(ReceivedPacket { bytes: Bytes::copy(bytes), body, regions, handles })
    }

    /// Bytes of content, with those of its large buffers.
    pub fn size(&self) -> usize {
        self.bytes().len() + self.regions.iter().map(Region::len).sum::<usize>()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            Some(region) => region.as_slice(),
            None => self.bytes.as_slice(),
        }
    }
}

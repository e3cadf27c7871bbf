//! The reading half of either end of a link through shared memory.

use super::kind;
use crate::error::{Error, Result};
use crate::pool::packet::{Along, ReceivedPacket};
use crate::shm::bay::{Bay, BayReader};
use crate::shm::inbox::Inbox;
use crate::shm::ring::{Consumer, Frame, Head};
use crate::shm::slots::{BAY, BLOB_REF, BlobRef, HANDLES, Slots};
use maniple_sys::memory::Mapping;
use maniple_sys::wire::Wire;
use std::sync::Arc;

/// The reading half of either end.
#[derive(Debug)]
pub(crate) struct Reader {
    ring: Consumer,
    slots: Slots,
    bay: BayReader,
    pub inbox: Inbox,
}

/// A frame as it was read. The content is an error if this process lacked a resource for it, which affects no other
/// frame.
#[derive(Debug)]
pub(crate) struct Said {
    pub kind: u16,
    pub aux: u32,
    pub number: u64,
    pub content: Result<ReceivedPacket>,
}

impl Reader {
    pub(super) fn new(ring: Consumer, slots: Slots, bay: Bay, memory: &Arc<Mapping>) -> Reader {
        Reader { ring, slots, bay: BayReader::new(memory, bay), inbox: Inbox::default() }
    }

    pub fn has_news(&mut self) -> bool {
        self.ring.has_news()
    }

    /// Returns the next frame. Frames of the kind `claimed` are claimed first, and skipped if they were revoked.
    ///
    /// # Errors
    /// The link is damaged.
    pub fn take(&mut self, claimed: Option<u16>, wire: &Wire) -> Result<Option<Said>> {
        let Reader { ring, slots, bay, inbox } = self;
        loop {
            let Some(frame) = ring.peek()? else { return Ok(None) };
            let Head { len, aux, number, .. } = frame.head;
            let kind = frame.head.kind & !kind::BODY_IN_BLOB;
            if claimed == Some(kind) && !frame.claim() {
                references(&frame)?.iter().try_for_each(|r| passable(inbox.discard(BlobRef::decode(r), wire, bay)))?;
                ring.pop(len);
                continue;
            }
            let mut along = Along::default();
            let mut in_bay: u64 = 0;
            if frame.head.blobs > 0 {
                for bytes in references(&frame)? {
                    along.inline += BLOB_REF;
                    let reference = BlobRef::decode(bytes);
                    if reference.slot == BAY {
                        in_bay = in_bay.saturating_add(reference.len);
                        if in_bay > bay.capacity() as u64 {
                            return Err(Error::Damaged("a frame names more than its bay holds"));
                        }
                    }
                    let read = match reference.slot {
                        HANDLES => inbox.take_handles(reference, wire).map(|handles| along.handles = handles),
                        _ => inbox.open(reference, wire, slots, bay).map(|region| along.regions.push(region)),
                    };
                    match read {
                        Err(error) if error.is_local() => along.missing = Some(error),
                        other => other?,
                    }
                }
            }
            let in_blob = frame.head.kind & kind::BODY_IN_BLOB != 0;
            let content = ReceivedPacket::new(&frame.body[along.inline..], along, in_blob);
            ring.pop(len);
            return Ok(Some(Said { kind, aux, number, content }));
        }
    }
}

/// Dropping a buffer that is not needed loses nothing.
fn passable(discarded: Result<()>) -> Result<()> {
    match discarded {
        Err(error) if error.is_local() => Ok(()),
        other => other,
    }
}

fn references<'a>(frame: &Frame<'a>) -> Result<&'a [[u8; BLOB_REF]]> {
    let end = usize::from(frame.head.blobs) * BLOB_REF;
    let refs = frame.body.get(..end).ok_or(Error::Damaged("a frame is shorter than its blob references"))?;
    Ok(refs.as_chunks::<BLOB_REF>().0)
}

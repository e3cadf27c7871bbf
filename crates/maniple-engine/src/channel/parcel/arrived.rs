//! Opens the blocks of buffers that have arrived.

use super::kept::State;
use super::{FREE, PAGE, damaged};
use crate::channel::known;
use crate::error::{Doing, Result};
use crate::shm::blocks::LONG;
use crate::shm::buffers::Buffer;
use crate::shm::region::Region;
use crate::shm::seen::Seen;
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::own::File;
use maniple_sys::{AsHandle, OwnedHandle};

/// Opens the buffer of `len` bytes in a block as a frame describes it. The frame may be wrong.
pub(super) fn open(handle: &OwnedHandle, len: usize, room: usize) -> Result<Region> {
    let (file, whole) = File::and_len(handle.as_handle()).doing("measure a shared-memory block")?;
    if len == 0 || len > room || !room.is_multiple_of(PAGE) || room.checked_add(PAGE) != Some(whole) {
        return Err(damaged());
    }
    if len < LONG
        && room < 2 * LONG
        && let Some(bytes) = known::copy(handle, file, len, room, whole, FREE)
    {
        return Ok(bytes.into());
    }
    if len >= LONG
        && Seen::is_room(len)
        && memory::is_fixed(handle)
        && let (Ok(state), Ok(data)) = (State::of(handle, room), Mapping::new(handle, len, Share::CopyOnWrite))
    {
        return Ok(Region::mapped(data, len, Some(state.put_back())));
    }
    let mut bytes = Buffer::default();
    memory::read_at(handle.as_handle(), bytes.fill(len)?, 0).doing("receive a large buffer")?;
    // Where this process may not write so far, the block is not used again.
    let _ = memory::write_at(handle.as_handle(), &FREE.to_ne_bytes(), room as u64);
    Ok(bytes.into())
}

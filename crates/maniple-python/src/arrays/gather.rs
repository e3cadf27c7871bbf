//! Copies arrays whose numbers are not adjacent.
#![allow(unsafe_code)]

/// Copies the numbers of an array, the last index varying fastest. Returns `None` if there is no memory for them.
///
/// # Safety
/// `start` points to an array with these lengths and with these strides in bytes. Each number has `item` bytes.
pub(super) unsafe fn gathered(start: *const u8, lengths: &[usize], strides: &[isize], item: usize) -> Option<Vec<u8>> {
    let count = lengths.iter().try_fold(item, |all, len| all.checked_mul(*len))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count).ok()?;
    // The last dimensions whose numbers are adjacent are copied at once.
    let mut whole = item;
    let mut inner = lengths.len();
    while inner > 0 && (lengths[inner - 1] == 1 || strides[inner - 1] == whole as isize) {
        whole *= lengths[inner - 1];
        inner -= 1;
    }
    if count > 0 {
        // SAFETY: the caller's promise covers all dimensions; the last ones form pieces of `whole` bytes.
        unsafe { gather(start, &lengths[..inner], &strides[..inner], whole, &mut bytes) };
    }
    Some(bytes)
}

/// # Safety
/// As [`gathered`], for pieces of `whole` bytes.
unsafe fn gather(start: *const u8, lengths: &[usize], strides: &[isize], whole: usize, bytes: &mut Vec<u8>) {
    let (Some((&len, lengths)), Some((&stride, strides))) = (lengths.split_first(), strides.split_first()) else {
        // SAFETY: without further dimensions `start` points to one piece.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(start, whole) });
        return;
    };
    let place = |index: usize| start.wrapping_offset(stride * index as isize);
    if !lengths.is_empty() {
        // SAFETY: the index is below `len`, so the place is within the array.
        (0..len).for_each(|index| unsafe { gather(place(index), lengths, strides, whole, bytes) });
        return;
    }
    macro_rules! in_pieces_of {
        ($($size:literal)*) => {
            match whole {
                // SAFETY: the index is below `len`, so the piece is within the array; `read` accepts any alignment of
                // bytes.
                $($size => bytes.extend((0..len).flat_map(|index| unsafe { place(index).cast::<[u8; $size]>().read() })),)*
                // SAFETY: as above.
                _ => (0..len).for_each(|index| unsafe {
                    bytes.extend_from_slice(std::slice::from_raw_parts(place(index), whole));
                }),
            }
        };
    }
    in_pieces_of!(1 2 4 8 16);
}

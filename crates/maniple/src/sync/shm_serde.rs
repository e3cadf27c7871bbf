//! How what lies in an arena goes to another process: the arena's descriptor, once for all that lies in it, and a
//! number.

use crate::sideband;
use maniple_engine::sync::arena::{Arena, CellRef, Place};
use maniple_sys::{BorrowedHandle, OwnedHandle};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// Something that has a place in an arena.
pub(crate) trait ShmSerde: Sized {
    /// The name of the value in errors.
    const WHAT: &'static str;

    fn place(&self) -> &Place;

    /// A descriptor in addition to the arena's.
    fn apart(&self) -> Option<BorrowedHandle<'_>> {
        None
    }

    fn open(ticket: CellRef, apart: Option<OwnedHandle>) -> maniple_engine::Result<Self>;
}

/// The arena's descriptor, the position in the arena, and the additional descriptor.
type ShmRef = (u32, u32, Option<u32>);

pub(crate) fn serialize<T: ShmSerde, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    shm_ref::<T, S::Error>(value)?.serialize(serializer)
}

fn shm_ref<T: ShmSerde, E: ser::Error>(value: &T) -> Result<ShmRef, E> {
    let ticket = value.place().send();
    let arena = sideband::send_shared_handle::<E>(T::WHAT, ticket.arena.handle())?;
    let apart = value.apart().map(|fd| sideband::send_shared_handle::<E>(T::WHAT, fd)).transpose()?;
    Ok((arena, ticket.number, apart))
}

pub(crate) fn deserialize<'de, T: ShmSerde, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let (arena, number, apart) = ShmRef::deserialize(deserializer)?;
    let refused = |error: maniple_engine::Error| <D::Error as de::Error>::custom(error);
    let arena = Arena::open(sideband::copy_handle::<D::Error>(T::WHAT, arena)?).map_err(refused)?;
    let apart = apart.map(|number| sideband::copy_handle::<D::Error>(T::WHAT, number)).transpose()?;
    T::open(CellRef { arena, number }, apart).map_err(refused)
}

/// Lets a type that [`ShmSerde`] be sent.
macro_rules! shm_serde {
    ($type:ident $(<$value:ident: $bound:ident>)?) => {
        impl $(<$value: $bound>)? serde::Serialize for $type $(<$value>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::sync::shm_serde::serialize(self, serializer)
            }
        }

        impl<'de $(, $value: $bound)?> serde::Deserialize<'de> for $type $(<$value>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::sync::shm_serde::deserialize(deserializer)
            }
        }
    };
}

pub(crate) use shm_serde;

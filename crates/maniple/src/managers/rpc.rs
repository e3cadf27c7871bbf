//! Functions that are called in the server, and their answers.
//!
//! As in pools, a function travels by its identity. The identity of an [`Invoke`], which identifies the types involved,
//! precedes it.
#![allow(unsafe_code)]

use super::protocol::Trouble;
use super::registry::{Content, Object};
use crate::chunk::{Input, Output};
use crate::error::Result as CallResult;
use crate::identity::{self, Identity};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The result of a call.
pub(super) struct Answer {
    output: Output,
    unless_sent: Option<Box<dyn FnOnce() + Send>>,
}

impl Answer {
    /// Returns an empty answer. `private`: it stays on this machine.
    pub(super) fn new(private: bool) -> Answer {
        Answer { output: Output::private(private), unless_sent: None }
    }

    /// Writes the value.
    pub(super) fn give<R: Serialize + ?Sized>(&mut self, value: &R) -> Result<(), Trouble> {
        self.output.choice(true);
        Ok(self.output.item(&value)?)
    }

    /// Sets the function to call if the answer cannot be sent.
    pub(super) fn unless_sent(&mut self, undo: impl FnOnce() + Send + 'static) {
        self.unless_sent = Some(Box::new(undo));
    }

    /// Writes that there is no value, in place of the value.
    pub(super) fn refuse(trouble: Trouble, given: Answer) -> Answer {
        let mut answer = Answer::new(false);
        answer.output.choice(false);
        // A number or a text can always be encoded.
        let _ = answer.output.item(&trouble);
        given.sent(false);
        answer
    }

    pub(super) fn bytes(&mut self) -> &[u8] {
        self.output.bytes()
    }

    /// Records whether the answer was sent.
    pub(super) fn sent(self, sent: bool) {
        if let Some(undo) = self.unless_sent
            && !sent
        {
            undo();
        }
    }
}

/// Reads an [`Answer`].
pub(super) fn read<R: DeserializeOwned>(bytes: &[u8]) -> CallResult<R> {
    let mut input = Input::plain(bytes);
    match input.choice()? {
        true => Ok(input.item()??),
        false => Err(input.item::<Trouble>()??.into()),
    }
}

/// Calls a function with an object's content, and writes the answer.
pub(super) type Door<C, A> = fn(&C, A, &mut Answer) -> Result<(), Trouble>;

/// The type of [`invoke`] for every kind of call.
type Invoke = fn(&Object, &mut Input<'_>, &mut Answer) -> Result<(), Trouble>;

fn invoke<C: 'static, A: DeserializeOwned>(
    object: &Object,
    input: &mut Input<'_>,
    answer: &mut Answer,
) -> Result<(), Trouble> {
    let address = input.identity()?.address()?;
    // SAFETY: `send_call` for exactly these types wrote the identity of a function of this type.
    let door = unsafe { std::mem::transmute::<*const (), Door<C, A>>(address) };
    let content = object.content::<C>()?;
    door(content, input.item::<A>()??, answer)
}

/// Writes a call. `argument` is encoded as an `A`.
pub(super) fn send_call<C: 'static, A: DeserializeOwned>(
    output: &mut Output,
    door: Door<C, A>,
    argument: &impl Serialize,
) -> CallResult<()> {
    output.identity(Identity::of(invoke::<C, A> as Invoke as *const ())?);
    output.identity(Identity::of(door as *const ())?);
    output.item(argument)
}

/// Makes the call with the object.
pub(super) fn receive_call(object: &Object, input: &mut Input<'_>, answer: &mut Answer) -> Result<(), Trouble> {
    let address = input.identity()?.address()?;
    // SAFETY: `send_call` wrote the identity of an `invoke`, and all of them have this type. `Identity::address` has
    // checked that the identity belongs to this build. The peer has proved that it knows the manager's key.
    let invoke = unsafe { std::mem::transmute::<*const (), Invoke>(address) };
    invoke(object, input, answer)
}

/// Makes an object's content.
pub(super) type Maker<A> = fn(A) -> Content;

/// The type of [`make`] for every kind of object.
type Make = fn(&mut Input<'_>) -> Result<Content, Trouble>;

fn make<A: DeserializeOwned>(input: &mut Input<'_>) -> Result<Content, Trouble> {
    let address = input.identity()?.address()?;
    // SAFETY: `send_make` for exactly this type wrote the identity of a function of this type.
    let maker = unsafe { std::mem::transmute::<*const (), Maker<A>>(address) };
    Ok(maker(input.item::<A>()??))
}

/// Writes a request to make an object.
pub(super) fn send_make<A: DeserializeOwned>(
    output: &mut Output,
    maker: Maker<A>,
    argument: &impl Serialize,
) -> CallResult<()> {
    output.identity(Identity::of(make::<A> as Make as *const ())?);
    output.identity(Identity::of(maker as *const ())?);
    output.item(argument)
}

/// Makes the object.
pub(super) fn receive_make(input: &mut Input<'_>) -> Result<Content, Trouble> {
    let address = input.identity()?.address()?;
    // SAFETY: as in `receive_call`, for `make`.
    let make = unsafe { std::mem::transmute::<*const (), Make>(address) };
    make(input)
}

macro_rules! sent {
    ($(#[$doc:meta])* $name:ident<$($type:ident),*>($function:ty)) => {
        $(#[$doc])*
        pub(super) struct $name<$($type),*>(pub $function);

        impl<$($type),*> Serialize for $name<$($type),*> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let identity = Identity::of(self.0 as *const ());
                identity.map_err(serde::ser::Error::custom)?.encode().serialize(serializer)
            }
        }

        impl<'de, $($type),*> Deserialize<'de> for $name<$($type),*> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = <[u8; identity::LEN]>::deserialize(deserializer)?;
                let address = Identity::decode(&mut &bytes[..]).and_then(Identity::address);
                let address = address.map_err(D::Error::custom)?;
                // SAFETY: `serialize` of exactly this type wrote the identity. The type is only used for arguments of
                // invocations and makers that have it in their own type, and they arrived with it.
                Ok($name(unsafe { std::mem::transmute::<*const (), $function>(address) }))
            }
        }
    };
}

sent!(
    /// A function as an argument.
    Plain<A, R>(fn(A) -> R)
);
sent!(
    /// A function that reads the object.
    Looking<T, A, R>(fn(&T, A) -> R)
);
sent!(
    /// A function that changes the object.
    Changing<T, A, R>(fn(&mut T, A) -> R)
);

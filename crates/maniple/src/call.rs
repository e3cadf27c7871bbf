//! The kinds of functions that a worker can call, and their encoded forms.
//!
//! The caller sends two things: the identity of [`make`] for one kind of call, which identifies all the types involved,
//! and the output of [`Call::send`], usually the function's own identity. The worker calls that `make`, which returns a
//! [`Run`]. The run takes chunks of encoded items and returns chunks of encoded results.
#![allow(unsafe_code)]

use crate::callee::Callee;
use crate::chunk::{Input, Output};
use crate::error::{CallError, Error, Result};
use crate::failure::Failure;
use crate::identity::{Function, Identity};
use crate::panic::caught;
use crate::payload::Payload;
use crate::registered::{self, Run};
use std::any::{TypeId, type_name};
use std::marker::PhantomData;

/// A kind of call.
pub(crate) trait Call: Sized + 'static {
    type Item: Payload;
    type Out: Payload;

    /// Writes the data from which [`Call::receive`] makes this call.
    fn send(&self, out: &mut Output) -> Result<()>;

    /// Makes the call again, in a worker.
    fn receive(input: &mut Input<'_>) -> Result<Self>;

    fn call(&self, item: Self::Item) -> Self::Out;

    /// Returns the name of the function for errors.
    fn callee(&self) -> Callee;

    /// Writes its name and types, for another program, instead of all that [`send`] writes.
    fn send_name(&self, _: &mut Output) -> Result<()> {
        Err(Error::Call(CallError::Function(
            "another program can only run plain functions (`apply`, `map` and `imap`) and functions by name",
        )))
    }
}

impl<C: Call> Run for C {
    /// Each item by itself: an item that panics, or that cannot be decoded, fails alone.
    fn run(&self, input: &mut Input<'_>, output: &mut Output) -> Result<()> {
        let count = input.chunk::<C::Item>()?;
        output.begin_chunk();
        let mut begun = 0;
        while begun < count {
            // Continues with the next item until one fails, because catching a panic costs more than a short call.
            let outcome = caught(|| {
                while begun < count {
                    begun += 1;
                    let item = input.part::<C::Item>()??;
                    let result = self.call(item);
                    output.part(&result)?;
                }
                Ok::<_, Error>(())
            });
            let failure = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => Failure::from(error),
                Err(panicked) => Failure::Panicked(*panicked),
            };
            // An item that panics in its drop has a result already.
            if output.count() < begun as usize {
                output.failed::<C::Out>(&failure)?;
            }
        }
        Ok(())
    }
}

/// The type of [`make`] for every kind of call.
type Make = fn(&mut Input<'_>) -> Result<Box<dyn Run>>;

fn make<C: Call>(input: &mut Input<'_>) -> Result<Box<dyn Run>> {
    Ok(Box::new(C::receive(input)?))
}

/// Writes the data that a worker needs for `call`.
pub(crate) fn send<C: Call>(call: &C, out: &mut Output) -> Result<()> {
    out.identity(Identity::of(make::<C> as Make as *const ())?);
    call.send(out)
}

/// Reads the data of `send`.
pub(crate) fn receive(input: &mut Input<'_>) -> Result<Box<dyn Run>> {
    let identity = input.identity()?;
    if identity == Identity::NAMED {
        return registered::receive(input);
    }
    let address = identity.address()?;
    // SAFETY: `send` wrote the identity of a `make`, and all of them have this type. `Identity::address` has checked that the
    // identity belongs to this build. Only the hub writes to the link.
    let make = unsafe { std::mem::transmute::<*const (), Make>(address) };
    caught(|| make(input)).map_err(Error::Panicked)?
}

/// `f(item)`.
pub(crate) struct Plain<A, R>(pub fn(A) -> R);

impl<A: Payload, R: Payload> Call for Plain<A, R> {
    type Item = A;
    type Out = R;

    fn send(&self, out: &mut Output) -> Result<()> {
        out.identity(Identity::of(self.0.address())?);
        Ok(())
    }

    fn receive(input: &mut Input<'_>) -> Result<Self> {
        let address = input.identity()?.address()?;
        // SAFETY: `send` of exactly this type wrote the identity of a function of this type.
        Ok(Plain(unsafe { Function::recall(address) }))
    }

    fn call(&self, item: A) -> R {
        (self.0)(item)
    }

    fn callee(&self) -> Callee {
        Callee::Pointer(self.0.address().addr(), type_name::<fn(A) -> R>())
    }

    fn send_name(&self, out: &mut Output) -> Result<()> {
        registered::send_registered(self.0, out)
    }
}

impl<A: Payload, R: Payload> Plain<A, R> {
    /// Returns the function of these types at `address`, which the list of tasks contains.
    pub(crate) fn at(address: *const ()) -> Self {
        // SAFETY: `Known::new` took the address from a function of this type.
        Plain(unsafe { Function::recall(address) })
    }
}

/// `f(&state, item)`.
pub(crate) struct With<S, A, R> {
    function: fn(&S, A) -> R,
    state: S,
}

impl<S: Payload, A: Payload, R: Payload> With<S, A, R> {
    /// The name of the function in errors.
    pub(crate) fn callee_of(function: fn(&S, A) -> R) -> Callee {
        Callee::Pointer((function as *const ()).addr(), type_name::<fn(&S, A) -> R>())
    }

    /// Writes the call without owning the state.
    pub(crate) fn send_borrowed(function: fn(&S, A) -> R, state: &S, out: &mut Output) -> Result<()> {
        out.identity(Identity::of(make::<Self> as Make as *const ())?);
        out.identity(Identity::of(function as *const ())?);
        out.item(state)
    }
}

impl<S: Payload, A: Payload, R: Payload> Call for With<S, A, R> {
    type Item = A;
    type Out = R;

    fn send(&self, out: &mut Output) -> Result<()> {
        out.identity(Identity::of(self.function as *const ())?);
        out.item(&self.state)
    }

    fn receive(input: &mut Input<'_>) -> Result<Self> {
        let address = input.identity()?.address()?;
        // SAFETY: as for `Plain`. This type is not in the list of `Function` because it is generic over a lifetime.
        let function = unsafe { std::mem::transmute::<*const (), fn(&S, A) -> R>(address) };
        Ok(With { function, state: input.item()?? })
    }

    fn call(&self, item: A) -> R {
        (self.function)(&self.state, item)
    }

    fn callee(&self) -> Callee {
        Self::callee_of(self.function)
    }
}

/// A function of 2 to 8 arguments that [`Pool::starmap`](crate::Pool::starmap) can call with tuples `T`: a named function,
/// or a `fn` pointer.
///
/// Closures do not implement it. A closure that captures nothing cannot be distinguished from a closure that captures a
/// zero-sized value, and such a value must not be created from nothing in another process. Pass closures to
/// [`Pool::map`](crate::Pool::map), which takes `fn` pointers, and destructure the tuple in the closure: `|(a, b)| a +
/// b`.
///
/// ```
/// fn area(width: u32, height: u32) -> u32 {
///     width * height
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let pool = maniple::Pool::new(1)?;
/// assert_eq!(pool.starmap(area, [(2, 3), (4, 5)])?, [6, 20]);
/// // As a `fn` pointer, a closure that captures nothing will do.
/// let sum: fn(u32, u32) -> u32 = |a, b| a + b;
/// assert_eq!(pool.starmap(sum, [(2, 3), (4, 5)])?, [5, 9]);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a function whose arguments are the fields of `{T}`",
    note = "`starmap` takes a function of 2 to 8 arguments and items that are tuples of them; for one argument use `map`"
)]
pub trait StarFn<T, R>: sealed::Spread<T, R> {}

impl<T, R, F: sealed::Spread<T, R>> StarFn<T, R> for F {}

mod sealed {
    pub trait Spread<T, R>: Copy + 'static {
        /// Calls it with the tuple's fields.
        fn star(&self, arguments: T) -> R;

        /// Returns the address, if it is a `fn` pointer.
        fn pointer(&self) -> Option<*const ()>;

        /// Returns the `fn` pointer to `address`.
        ///
        /// # Safety
        /// `address` came from [`Spread::pointer`] of the same type.
        unsafe fn from_pointer(address: *const ()) -> Option<Self>;
    }
}

macro_rules! star {
    ($($type:ident $value:ident),*) => {
        impl<Fun, Out: 'static, $($type: 'static),*> sealed::Spread<($($type,)*), Out> for Fun
        where
            Fun: Fn($($type),*) -> Out + Copy + 'static,
        {
            fn star(&self, ($($value,)*): ($($type,)*)) -> Out {
                self($($value),*)
            }

            fn pointer(&self) -> Option<*const ()> {
                let is = TypeId::of::<Fun>() == TypeId::of::<fn($($type),*) -> Out>();
                // SAFETY: `Self` is a `fn` pointer of exactly this type, which is an address.
                is.then(|| unsafe { std::mem::transmute_copy::<Fun, *const ()>(self) })
            }

            unsafe fn from_pointer(address: *const ()) -> Option<Self> {
                let is = TypeId::of::<Fun>() == TypeId::of::<fn($($type),*) -> Out>();
                // SAFETY: as above. The caller promises that the address belongs to a function of this type.
                is.then(|| unsafe { std::mem::transmute_copy::<*const (), Fun>(&address) })
            }
        }
    };
}

star!(A a, B b);
star!(A a, B b, C c);
star!(A a, B b, C c, D d);
star!(A a, B b, C c, D d, E e);
star!(A a, B b, C c, D d, E e, F f);
star!(A a, B b, C c, D d, E e, F f, G g);
star!(A a, B b, C c, D d, E e, F f, G g, H h);

/// `f(a, b, …)`.
pub(crate) struct Star<F, T, R>(F, PhantomData<fn(T) -> R>);

impl<F: StarFn<T, R>, T, R> Star<F, T, R> {
    /// # Errors
    /// It is a closure.
    pub(crate) fn new(function: F) -> Result<Self> {
        // A named function is a type without a size, and has exactly one value, which can be created from nothing. A
        // closure without a size may hold any value without a size; its name identifies it.
        let named = size_of::<F>() == 0 && !type_name::<F>().ends_with("{{closure}}");
        if named || function.pointer().is_some() {
            return Ok(Star(function, PhantomData));
        }
        Err(Error::Call(CallError::Function(
            "starmap takes named functions and fn pointers; pass a closure to map: |(a, b)| ...",
        )))
    }
}

impl<F: StarFn<T, R>, T: Payload, R: Payload> Call for Star<F, T, R> {
    type Item = T;
    type Out = R;

    fn send(&self, out: &mut Output) -> Result<()> {
        if let Some(address) = self.0.pointer() {
            out.identity(Identity::of(address)?);
        }
        Ok(())
    }

    fn receive(input: &mut Input<'_>) -> Result<Self> {
        if size_of::<F>() == 0 {
            // SAFETY: `new` accepts named functions only, whose type has one value of no bytes.
            return Ok(Star(unsafe { std::mem::zeroed() }, PhantomData));
        }
        let address = input.identity()?.address()?;
        // SAFETY: `send` of exactly this type wrote the address that `pointer` returned.
        let function = unsafe { F::from_pointer(address) };
        function
            .map(|f| Star(f, PhantomData))
            .ok_or(Error::Call(CallError::Function("a fn pointer is not encoded as a function")))
    }

    fn call(&self, item: T) -> R {
        self.0.star(item)
    }

    fn callee(&self) -> Callee {
        self.0
            .pointer()
            .map_or(Callee::Named(type_name::<F>().into()), |at| Callee::Pointer(at.addr(), type_name::<F>()))
    }
}

//! Values that can travel to another process.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that can travel to another process and back.
///
/// Implemented for every type that serde can serialize and deserialize, and that borrows nothing: `String`, not `&str`;
/// `Vec<T>`, not `&[T]`. For a function of `&str` the compiler says that "implementation of `Deserialize` is not general
/// enough".
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Photo {
///     name: String,
///     pixels: maniple::Bytes,
/// }
///
/// fn travels<T: maniple::Payload>() {}
/// travels::<Photo>();
/// travels::<Result<Vec<Photo>, String>>();
/// ```
///
/// A [`Manager`](crate::Manager) or a [`Pool`](crate::Pool) cannot be sent. Send the proxies of the manager, which every
/// process can use, or its address and key for [`Manager::connect`](crate::Manager::connect).
///
/// ```compile_fail
/// fn travels<T: maniple::Payload>() {}
/// travels::<maniple::Manager>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another process",
    note = "serde encodes the values that are sent to another process: derive `serde::Serialize` and \
        `serde::Deserialize` for a type of your own, and let it own its data (`String` instead of `&str`)",
    note = "an error without serde's traits, such as `std::io::Error` or `Box<dyn Error>`, goes as its text: return \
        `Result<T, String>` with `.map_err(|error| error.to_string())`; a `maniple::Error` can be sent",
    note = "files, sockets and other descriptors are sent as a `maniple::Handle`",
    note = "a `Manager` or a `Pool` stays in its process: send the manager's proxies, or its address and key for \
        `Manager::connect`"
)]
pub trait Payload: Serialize + DeserializeOwned + Send + 'static {}

// Without this the compiler would report the traits of serde for a part of the type, without the notes above.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Payload for T {}

//! What can go to another process.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that can go to another process and come from one.
///
/// Implemented for every type that serde can serialize and deserialize, and that borrows nothing.
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot go to another process",
    note = "what goes to another process is encoded by serde: derive `serde::Serialize` and `serde::Deserialize` for it, and let it own what it holds",
    note = "files, sockets and other descriptors go as a `maniple::Handle`"
)]
pub trait Payload: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Payload for T {}

//! The options of a manager, and its start.

use super::client::RemoteServer;
use super::{Manager, Own, see_out, server};
use crate::error::{Error, ProcessError, Result, was};
use crate::handle::Handle;
use crate::process::Process;
use crate::startup::StartMethod;
use crate::transport::{Address, Authkey};
use maniple_sys::{AsHandle, socket, stream};
use std::fmt;
use std::sync::Arc;

/// Builds a [`Manager`]; see [`Manager::builder`].
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let manager = maniple::Manager::builder().address("127.0.0.1:0").authkey("s3cret").name("depot").build()?;
/// assert_ne!(manager.address().port(), None);
/// assert_eq!(manager.authkey().as_bytes(), b"s3cret");
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct ManagerBuilder {
    address: Result<Option<Address>>,
    key: Option<Authkey>,
    method: StartMethod,
    name: String,
}

impl ManagerBuilder {
    pub(super) fn new() -> ManagerBuilder {
        ManagerBuilder { address: Ok(None), key: None, method: StartMethod::default(), name: "Manager".into() }
    }

    /// Sets the address of the server. The default is a new local address, which only clients with the key can use.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::builder().address("127.0.0.1:0").build()?;
    /// assert_ne!(manager.address().port(), None);
    /// assert!(maniple::Manager::builder().address("no address").build().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn address(mut self, address: impl TryInto<Address, Error: Into<Error>>) -> Self {
        self.address = address.try_into().map(Some).map_err(Into::into);
        self
    }

    /// Sets the key that clients need. The default is random bytes.
    ///
    /// ```
    /// use maniple::Manager;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = Manager::builder().authkey("s3cret").build()?;
    /// assert!(Manager::connect(manager.address(), "s3cret").is_ok());
    /// assert!(Manager::connect(manager.address(), "a guess").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn authkey(mut self, key: impl Into<Authkey>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets how the server's process is started. The default is [`StartMethod::Spawn`].
    ///
    /// ```
    /// use maniple::{Manager, StartMethod};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = Manager::builder().start_method(StartMethod::default()).build()?;
    /// assert!(manager.pid().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = method;
        self
    }

    /// Sets the name of the server's process. The default is `Manager`.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let _manager = maniple::Manager::builder().name("depot").build()?;
    /// assert!(maniple::active_children().iter().any(|child| child.name() == "depot"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Starts the server.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::builder().build()?;
    /// assert_ne!(manager.pid(), Some(std::process::id()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::Start`] if the process cannot be started, or the address is in use.
    /// [`ChannelError::Address`](crate::ChannelError::Address) if the text is not an address.
    pub fn build(self) -> Result<Manager> {
        let address = self.address?;
        let key = self.key.map_or_else(Authkey::random, Ok)?;
        let refused = |doing| {
            move |source| Error::Process(ProcessError::Start(maniple_engine::Error::Os { doing, source }.to_string()))
        };
        let (reader, writer) = stream::pipe().map_err(refused("make the pipe of a manager's server"))?;
        let start = server::Start { address, key: key.as_bytes().to_owned(), report: Handle::new(writer) };
        let process =
            Process::builder().name(self.name).daemon(true).start_method(self.method).build(server::run, start)?;
        process.start()?;
        let report = stream::read_to_end(reader.as_handle()).map_err(refused("hear of a manager's server"))?;
        if report.is_empty() {
            let exit = see_out(&process)?;
            return Err(Error::Process(ProcessError::Start(format!(
                "a manager's server {}{exit} before it was ready",
                was(exit)
            ))));
        }
        let address = server::read_report(&report)?;
        let path = address
            .path()
            .map(std::path::absolute)
            .transpose()
            .map_err(refused("find the socket of a manager's server"))?;
        let path = path.and_then(|path| Some((socket::file(&path).ok()??, path)));
        let process = Arc::new(process);
        let own = Own { process, owner: std::process::id(), path };
        let remote = RemoteServer::of_process(&own.process, &address, &key)?;
        Ok(Manager { remote, own: Some(own) })
    }
}

// Without the key.
impl fmt::Debug for ManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerBuilder")
            .field("address", &self.address)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

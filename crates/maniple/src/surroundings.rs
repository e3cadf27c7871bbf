//! The environment variables and the working directory of a child that differ from those of this process.

use crate::error::{Error, Result, SystemError};
use maniple_engine::process::Launch;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// What a child has of its own. By default it has what this process has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Variables in the order of the calls that set or remove them. The last call for a name counts.
    pub environment: Vec<(OsString, Option<OsString>)>,
    pub folder: Option<PathBuf>,
}

impl Surroundings {
    /// Adds them to a start.
    pub(crate) fn add_to(&self, mut launch: Launch) -> Launch {
        for (name, value) in &self.environment {
            launch = match value {
                Some(value) => launch.env(name, value),
                None => launch.env_remove(name),
            };
        }
        match &self.folder {
            Some(folder) => launch.current_dir(folder),
            None => launch,
        }
    }

    /// Checks them, and makes the directory independent of the working directory that this process has later.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a variable that no environment can contain, [`Error::System`] for a path that is not
    /// a directory.
    pub(crate) fn checked(mut self) -> Result<Surroundings> {
        for (name, value) in &self.environment {
            let bytes = name.as_encoded_bytes();
            // The standard library accepts a name that begins with `=`, which some systems use.
            if bytes.is_empty() || bytes[1..].contains(&b'=') {
                return Err(Error::InvalidArgument(
                    "an environment variable without a name, or with the character = in its name; use another name",
                ));
            }
            if bytes.contains(&0) || value.as_ref().is_some_and(|value| value.as_encoded_bytes().contains(&0)) {
                return Err(Error::InvalidArgument(
                    "an environment variable with a NUL in its name or value, which no environment can contain; remove the NUL",
                ));
            }
        }
        self.folder = self.folder.map(|folder| directory(&folder)).transpose()?;
        Ok(self)
    }
}

fn directory(folder: &Path) -> Result<PathBuf> {
    let refused = |kind, why: &str| {
        let told = io::Error::new(kind, format!("{} {why}", folder.display()));
        Error::System(SystemError::doing("use the current_dir of the workers", told))
    };
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(refused(io::ErrorKind::NotADirectory, "is not a directory; pass the path of one")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refused(error.kind(), "does not exist; make the directory first, or pass another path"));
        }
        Err(error) => return Err(refused(error.kind(), &format!("cannot be used: {error}"))),
    }
    std::path::absolute(folder).map_err(|error| refused(error.kind(), &format!("has no absolute path: {error}")))
}

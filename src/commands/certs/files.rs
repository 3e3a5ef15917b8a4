//! Files that are complete when they are seen, and never replaced by accident.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use thiserror::Error;

/// A file that is to be.
#[derive(Debug)]
pub struct NewFile {
    /// Its name in the directory.
    pub name: &'static str,
    /// What is in it.
    pub content: String,
    /// Whether nobody but its owner may read it.
    pub secret: bool,
}

/// Why files are not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Some exist.
    #[error(
        "{0} would be replaced: name another --out-dir, or allow it with --force (with --ca-cert and --ca-key it concerns \
         tls.crt and tls.key alone)"
    )]
    Exists(String),
    /// The system refuses.
    #[error("{} cannot be written: {source}", .path.display())]
    Refused {
        /// What cannot be written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes files into a directory, which is made if need be: first beside their places, and when all are complete, into
/// them. Whoever reads one sees the old content or the new. Without `force` nothing is replaced.
///
/// # Errors
/// If a file exists or cannot be written.
pub fn write(directory: &Path, drafts: &[NewFile], force: bool) -> Result<(), WriteError> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::Refused { path, source }
    };
    let places: Vec<PathBuf> = drafts.iter().map(|draft| directory.join(draft.name)).collect();
    let taken: Vec<String> = places
        .iter()
        .filter(|place| !force && place.symlink_metadata().is_ok())
        .map(|place| place.display().to_string())
        .collect();
    if !taken.is_empty() {
        return Err(WriteError::Exists(taken.join(", ")));
    }
    fs::create_dir_all(directory).map_err(refused(directory))?;
    let complete = drafts.iter().zip(&places).map(|(draft, place)| {
        let file = beside(directory, draft).map_err(refused(place))?;
        Ok((file, place))
    });
    for (file, place) in complete.collect::<Result<Vec<_>, _>>()? {
        let put = if force { file.persist(place) } else { file.persist_noclobber(place) };
        put.map_err(|error| refused(place)(error.error))?;
    }
    Ok(())
}

fn beside(directory: &Path, draft: &NewFile) -> io::Result<NamedTempFile> {
    let mode = if draft.secret { 0o600 } else { 0o644 };
    let mut file =
        tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(directory)?;
    file.write_all(draft.content.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

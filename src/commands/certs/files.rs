//! Writes files atomically, and replaces existing files only on request.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use thiserror::Error;

/// A file to write.
#[derive(Debug)]
pub struct NewFile {
    /// The file name in the directory.
    pub name: &'static str,
    pub content: String,
    /// Whether only the owner may read the file.
    pub secret: bool,
}

/// Why files were not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Some files exist. Contains their paths.
    #[error(
        "{0} would be replaced: use another --out-dir, or allow it with --force (with --ca-cert and --ca-key, \
         only tls.crt and tls.key are replaced)"
    )]
    Exists(String),
    /// The operating system reported an error.
    #[error("{} cannot be written: {source}", .path.display())]
    Io {
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Writes files into a directory and creates the directory if necessary. All files are written under temporary names first
/// and then renamed. A reader gets the old or the new content, never a part. Without `force` no file is replaced.
///
/// # Errors
/// If a file exists or cannot be written.
pub fn write(directory: &Path, files: &[NewFile], force: bool) -> Result<(), WriteError> {
    let error_at = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::Io { path, source }
    };
    let paths: Vec<PathBuf> = files.iter().map(|file| directory.join(file.name)).collect();
    let existing: Vec<String> = paths
        .iter()
        .filter(|path| !force && path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !existing.is_empty() {
        return Err(WriteError::Exists(existing.join(", ")));
    }
    fs::create_dir_all(directory).map_err(error_at(directory))?;
    let temporary = files.iter().zip(&paths).map(|(file, path)| {
        let written = write_temporary(directory, file).map_err(error_at(path))?;
        Ok((written, path))
    });
    for (file, path) in temporary.collect::<Result<Vec<_>, _>>()? {
        let renamed = if force { file.persist(path) } else { file.persist_noclobber(path) };
        renamed.map_err(|error| error_at(path)(error.error))?;
    }
    Ok(())
}

fn write_temporary(directory: &Path, new: &NewFile) -> io::Result<NamedTempFile> {
    let mode = if new.secret { 0o600 } else { 0o644 };
    let mut file =
        tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(directory)?;
    file.write_all(new.content.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

//! Reloads files that change while the process runs: certificates, CA bundles, kubeconfigs.
//!
//! The files are polled and compared by content: mounts of Secrets and ConfigMaps swap symbolic links, and file events miss
//! that. If new content is invalid, the previous content stays in use.

use std::fmt::Display;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

/// Why a file that the process needs cannot be read.
#[derive(Debug, Error)]
#[error("{flag}: {} cannot be read: {source}", .path.display())]
pub struct FileError {
    /// The flag that names the file.
    pub flag: &'static str,
    pub path: PathBuf,
    /// The reason.
    pub source: std::io::Error,
}

/// Files that are used together, such as a certificate and its key, each with the flag that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    named: Vec<(&'static str, PathBuf)>,
}

/// The content of each file, in the order of the files.
pub type Contents = Vec<Vec<u8>>;

impl Files {
    /// Files, each with its flag.
    pub fn new<'a>(named: impl IntoIterator<Item = (&'static str, &'a Path)>) -> Self {
        Self { named: named.into_iter().map(|(flag, path)| (flag, path.to_owned())).collect() }
    }

    /// Reads all files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(&self) -> Result<Contents, FileError> {
        let read = |(flag, path): &(&'static str, PathBuf)| {
            std::fs::read(path).map_err(|source| FileError { flag, path: path.clone(), source })
        };
        self.named.iter().map(read).collect()
    }

    /// Reads the files every `interval` until the handle is dropped. If the contents differ from `current`, calls `apply` with
    /// the new contents. An error of reading or of `apply` is logged once, and `current` stays in use.
    pub fn follow<E: Display + Send>(
        self,
        current: Contents,
        interval: Duration,
        mut apply: impl FnMut(&Contents) -> Result<(), E> + Send + 'static,
    ) -> AbortOnDropHandle<()> {
        let what = self.to_string();
        follow(what, current, interval, move || self.read(), move |contents| ready(apply(&contents)))
    }
}

/// Like [`Files::follow`], for any result of `read` and for an asynchronous `apply`.
pub fn follow<C, R, A, E>(
    what: String,
    mut current: C,
    interval: Duration,
    mut read: impl FnMut() -> Result<C, R> + Send + 'static,
    mut apply: impl FnMut(C) -> A + Send + 'static,
) -> AbortOnDropHandle<()>
where
    C: Clone + PartialEq + Send + 'static,
    R: Display,
    A: Future<Output = Result<(), E>> + Send,
    E: Display,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut logged = None;
        loop {
            tokio::time::sleep(interval).await;
            let contents = read().map_err(|error| error.to_string());
            let failure = match contents {
                Ok(contents) if contents == current => None,
                Ok(contents) => match apply(contents.clone()).await {
                    Ok(()) => {
                        tracing::info!(files = what, "files have changed and are in use");
                        current = contents;
                        None
                    }
                    Err(error) => Some(error.to_string()),
                },
                Err(error) => Some(error),
            };
            if let Some(failure) = &failure
                && logged.as_ref() != Some(failure)
            {
                tracing::warn!(
                    files = what,
                    error = failure,
                    "files have changed and cannot be used; the previous content stays in use"
                );
            }
            logged = failure;
        }
    }))
}

impl Display for Files {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (flag, path)) in self.named.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(formatter, "{separator}{flag}={}", path.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn swapped_link_is_followed_and_bad_content_is_rejected() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let swap = |to: &str| {
            symlink(at(to), at("..data_tmp")).expect("a link");
            std::fs::rename(at("..data_tmp"), at("link")).expect("the link is swapped");
        };
        for content in ["one", "bad", "two"] {
            std::fs::write(at(content), content).expect("a file");
        }
        swap("one");
        let files = Files::new([("--file", at("link").as_path())]);
        let current = files.read().expect("readable");
        let (seen, mut applied) = mpsc::unbounded_channel();
        let _following = files.follow(current, Duration::from_millis(5), move |contents| {
            let text = String::from_utf8_lossy(&contents[0]).into_owned();
            let result = if text == "bad" { Err("it is bad") } else { Ok(()) };
            seen.send(text).expect("the test listens");
            result
        });
        swap("bad");
        assert_eq!(applied.recv().await.as_deref(), Some("bad"));
        assert_eq!(applied.recv().await.as_deref(), Some("bad"), "rejected content is tried again");
        swap("two");
        while applied.recv().await.expect("the task runs") != "two" {}
    }
}

//! Files that change while the process runs: certificates, authorities, kubeconfigs.
//!
//! They are polled and compared by content, since the mounts of Secrets and ConfigMaps swap symbolic links, which
//! file events miss. Content that cannot be used is refused, and what was in use stays in use.

use std::fmt::Display;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

/// Why a file that the process needs is not there for it.
#[derive(Debug, Error)]
#[error("{flag}: {} cannot be read: {source}", .path.display())]
pub struct FileError {
    /// The flag that names the file.
    pub flag: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be read.
    pub source: std::io::Error,
}

/// Files that are used together, such as a certificate and its key, each with the flag that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    named: Vec<(&'static str, PathBuf)>,
}

/// The files' bytes, in their order.
pub type Contents = Vec<Vec<u8>>;

impl Files {
    /// The files of these flags.
    pub fn new<'a>(named: impl IntoIterator<Item = (&'static str, &'a Path)>) -> Self {
        Self { named: named.into_iter().map(|(flag, path)| (flag, path.to_owned())).collect() }
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// At the first that cannot be read.
    pub fn read(&self) -> Result<Contents, FileError> {
        let read = |(flag, path): &(&'static str, PathBuf)| {
            std::fs::read(path).map_err(|source| FileError { flag, path: path.clone(), source })
        };
        self.named.iter().map(read).collect()
    }

    /// Reads them every `interval` as long as the handle is kept, and gives their contents to `apply` when they
    /// differ from `current`. What `apply` refuses is logged once and `current` goes on.
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

/// The same for whatever `read` makes of files, and for an `apply` that takes its time.
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
        let mut refused = None;
        loop {
            tokio::time::sleep(interval).await;
            let contents = read().map_err(|error| error.to_string());
            let complaint = match contents {
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
            if let Some(complaint) = &complaint
                && refused.as_ref() != Some(complaint)
            {
                tracing::warn!(
                    files = what,
                    error = complaint,
                    "files have changed and cannot be used; what was in use stays in use"
                );
            }
            refused = complaint;
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
    async fn a_swapped_link_is_followed_and_bad_content_refused() {
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
            let verdict = if text == "bad" { Err("it is bad") } else { Ok(()) };
            seen.send(text).expect("the test listens");
            verdict
        });
        swap("bad");
        assert_eq!(applied.recv().await.as_deref(), Some("bad"));
        assert_eq!(applied.recv().await.as_deref(), Some("bad"), "what is refused is looked at again");
        swap("two");
        while applied.recv().await.expect("the task runs") != "two" {}
    }
}

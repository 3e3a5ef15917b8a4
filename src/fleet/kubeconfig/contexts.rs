//! Reads the contexts of a kubeconfig; each is a cluster.

use std::collections::BTreeMap;
use std::path::Path;

use kube::config::Kubeconfig;
use thiserror::Error;

use crate::kubeconfig::{Context, context, without_content};

/// Maximum length of a label value.
const LABEL: usize = 63;

/// Clusters by tag. An error is a message about a context that is not usable.
pub(super) type FleetContexts = BTreeMap<String, Result<Context, String>>;

/// Why a file is not usable.
#[derive(Debug, Error)]
pub enum FleetFileError {
    /// The file cannot be read.
    #[error("--fleet-kubeconfig: the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    /// The file has no contexts. A file that is being written is empty for a moment.
    #[error("--fleet-kubeconfig: the kubeconfig has no contexts, and each would be a member")]
    NoContexts,
}

/// Reads the file and the files that its contexts refer to.
///
/// # Errors
/// If the file itself is not usable. An error of one context is in its entry.
pub(super) fn read(path: &Path) -> Result<FleetContexts, FleetFileError> {
    let file =
        Kubeconfig::read_from(path).map_err(|error| FleetFileError::Kubeconfig(without_content(&error)))?;
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for named in &file.contexts {
        names.entry(tag(&named.name)).or_default().push(&named.name);
    }
    if names.is_empty() {
        return Err(FleetFileError::NoContexts);
    }
    let read = |tag: &str, names: &[&str]| match names {
        _ if tag.is_empty() => {
            Err(format!("the context {:?} has no letter or digit for a cluster name: rename it", names[0]))
        }
        [name] => match context(&file, name) {
            Ok(Context { impersonation: Some(_), .. }) => Err(format!(
                "the context {name:?}: impersonation (as, as-uid, as-groups, as-user-extra) is not supported"
            )),
            Ok(context) => Ok(context),
            Err(error) => Err(format!("the context {name:?}: {error}")),
        },
        names => Err(format!("the contexts {names:?} would all be the cluster {tag}: rename all but one")),
    };
    let read = names.iter().map(|(tag, names)| (tag.clone(), read(tag, names)));
    Ok(read.collect())
}

/// The context's name as a label value. Invalid characters become hyphens. A long name keeps its end, which distinguishes names such
/// as those of EKS. Empty if the name has no valid character.
fn tag(name: &str) -> String {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_outer = |c: char| c.is_ascii_alphanumeric();
    let label: String = name.chars().map(|c| if is_inner(c) { c } else { '-' }).collect();
    let label = label.trim_matches(|c| !is_outer(c));
    label[label.len().saturating_sub(LABEL)..].trim_start_matches(|c| !is_outer(c)).to_owned()
}

#[cfg(test)]
mod tests;

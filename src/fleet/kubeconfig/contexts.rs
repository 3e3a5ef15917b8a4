//! A kubeconfig's contexts, each as a cluster: what the file and those that it refers to say at one moment.

use std::collections::BTreeMap;
use std::path::Path;

use kube::config::Kubeconfig;
use thiserror::Error;

use crate::kubeconfig::{Context, context, without_content};

/// The longest value that a label may have.
const LABEL: usize = 63;

/// The clusters by their tags, and in words what is wrong with those that cannot be asked.
pub(super) type FleetContexts = BTreeMap<String, Result<Context, String>>;

/// Why a file has no clusters.
#[derive(Debug, Error)]
pub enum FleetFileError {
    /// It cannot be read.
    #[error("--fleet-kubeconfig: the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    /// It is empty, as a file is for a moment while it is written.
    #[error("--fleet-kubeconfig: the kubeconfig has no contexts, and each would be a member")]
    NoContexts,
}

/// Reads the file and all that its contexts refer to.
///
/// # Errors
/// If the file itself cannot be used; what is wrong with one context is said in its place.
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
            Err(format!("the context {:?} has no letter or digit to name a cluster by: rename it", names[0]))
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

/// A context's name as the value of a label. What that may not have becomes a hyphen; a name that is too long keeps its
/// end, which is what tells names such as those of EKS apart. Empty if nothing is left.
fn tag(name: &str) -> String {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_outer = |c: char| c.is_ascii_alphanumeric();
    let label: String = name.chars().map(|c| if is_inner(c) { c } else { '-' }).collect();
    let label = label.trim_matches(|c| !is_outer(c));
    label[label.len().saturating_sub(LABEL)..].trim_start_matches(|c| !is_outer(c)).to_owned()
}

#[cfg(test)]
mod tests;

//! A command that the user can run to query the metrics, and its output.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::process::Command;

use crate::kubectl;
use crate::pki::Identity;

/// Number of items in the output. Further items are only counted.
const MAX_ITEMS: usize = 3;

/// A command line that gets a path from the control plane: kubectl, or curl if kubectl is not installed.
#[derive(Clone)]
pub(super) struct QueryCommand {
    program: &'static str,
    arguments: Vec<String>,
}

/// A list with its items unchanged.
#[derive(Deserialize)]
struct List<'a> {
    kind: &'a str,
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

impl QueryCommand {
    /// The command for `path`. `None` if kubectl is not installed.
    pub(super) fn kubectl(kubeconfig: &Path, path: &str) -> Option<Self> {
        let kubeconfig = kubeconfig.display().to_string();
        let arguments = ["--kubeconfig", &kubeconfig, "get", "--raw", path].map(str::to_owned).to_vec();
        kubectl::is_installed().then_some(Self { program: "kubectl", arguments })
    }

    /// The command for `path` without kubectl. Writes the files that it needs into `directory`.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub(super) fn curl(
        directory: &Path,
        server: &str,
        ca_pem: &str,
        identity: &Identity,
        path: &str,
    ) -> io::Result<Self> {
        let mut arguments = Vec::new();
        for (flag, name, text) in [
            ("--cacert", "ca.crt", ca_pem),
            ("--cert", "admin.crt", &identity.certificate),
            ("--key", "admin.key", &identity.key),
        ] {
            let file = directory.join(name);
            fs::write(&file, text)?;
            arguments.extend([flag.to_owned(), file.display().to_string()]);
        }
        arguments.splice(0..0, ["--silent", "--show-error"].map(str::to_owned));
        arguments.push(format!("{server}{path}"));
        Ok(Self { program: "curl", arguments })
    }

    /// The command line for a shell.
    pub(super) fn line(&self) -> String {
        let quoted = self.arguments.iter().map(|argument| {
            if argument.contains(['*', '?', '&', ' ']) { format!("\"{argument}\"") } else { argument.clone() }
        });
        std::iter::once(self.program.to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
    }

    /// Runs the command and returns its output with shortened lists.
    ///
    /// # Errors
    /// If the command cannot be run, fails or takes too long; the error has its stderr.
    pub(super) async fn run(&self) -> anyhow::Result<String> {
        let mut command = Command::new(self.program);
        let (printed, complaints) = kubectl::output_of(command.args(&self.arguments)).await?;
        Ok(format!("{complaints}{}", shorten(&printed)))
    }
}

/// A list with one item per line, limited to the first items. Other text stays unchanged.
fn shorten(body: &str) -> String {
    let Ok(list) = serde_json::from_str::<List<'_>>(body) else { return body.trim_end().to_owned() };
    let mut lines = vec![format!("{} ({}), {} items:", list.kind, list.api_version, list.items.len())];
    lines.extend(list.items.iter().take(MAX_ITEMS).map(|item| format!("  {item}")));
    if list.items.len() > MAX_ITEMS {
        lines.push(format!("  … and {} more", list.items.len() - MAX_ITEMS));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_shortened_and_its_items_stay_unchanged() {
        let item = r#"{"value":"1","describedObject":{"name":"a"}}"#;
        let list = |count: usize| {
            let items = vec![item; count].join(",");
            format!(r#"{{"kind":"MetricValueList","apiVersion":"v1","metadata":{{}},"items":[{items}]}}"#)
        };
        assert_eq!(shorten(&list(1)), format!("MetricValueList (v1), 1 items:\n  {item}"));
        let long = shorten(&list(5));
        assert!(long.ends_with("  … and 2 more"), "{long}");
        assert_eq!(long.lines().count(), 5);
        assert_eq!(shorten("ok\n"), "ok");
    }

    #[test]
    fn wildcard_is_quoted_for_the_shell() {
        let query_command = QueryCommand {
            program: "kubectl",
            arguments: ["get", "--raw", "/pods/*/http_requests"].map(str::to_owned).to_vec(),
        };
        assert_eq!(query_command.line(), r#"kubectl get --raw "/pods/*/http_requests""#);
    }

    #[tokio::test]
    async fn failed_command_reports_the_cause() {
        let query_command = QueryCommand { program: "ls", arguments: vec!["/nowhere".to_owned()] };
        assert!(query_command.run().await.unwrap_err().to_string().contains("/nowhere"));
    }
}

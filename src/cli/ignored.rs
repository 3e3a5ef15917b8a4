//! The flags of Karmada's built-in adapter that have no effect here. They are accepted with a value of their type, so that
//! an existing Deployment that sets them starts. `--help` does not list them. A warning is logged if an operator could
//! wrongly rely on such a flag.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

use super::values::{self, FlagValueError};
use crate::api::duration::GoDuration;
use crate::api::quantity::Quantity;

/// The ignored flags that were set, and their last values. clap's derive flattens this type into the command line.
#[derive(Clone, Debug)]
pub struct IgnoredFlags(Vec<(&'static str, String)>);

/// Warning that is logged if one of these flags is set.
pub struct IgnoredFlagWarning {
    /// The text of the warning.
    pub sentence: &'static str,
    /// Name and harmless value of each flag. A flag with its harmless value, or with an empty one, causes no warning.
    pub flags: &'static [(&'static str, &'static str)],
}

/// The type of a flag's value.
#[derive(Clone, Copy)]
enum FlagType {
    Bool,
    Int,
    Uint,
    Float,
    Duration,
    Quantity,
    Text,
    /// klog: name or number of a severity.
    Severity,
    /// klog: `file.go:line`.
    TraceLocation,
    /// klog: `pattern=level,…`.
    ModuleLevels,
    /// pflag's `int32Slice`.
    Ints,
    /// `certificate,key` or `certificate,key:domain,…`.
    CertificateAndKey,
}

const TABLE: &[(&str, FlagType)] = &[
    ("add-dir-header", FlagType::Bool),
    ("alsologtostderr", FlagType::Bool),
    ("alsologtostderrthreshold", FlagType::Severity),
    ("audit-log-batch-buffer-size", FlagType::Int),
    ("audit-log-batch-max-size", FlagType::Int),
    ("audit-log-batch-max-wait", FlagType::Duration),
    ("audit-log-batch-throttle-burst", FlagType::Int),
    ("audit-log-batch-throttle-enable", FlagType::Bool),
    ("audit-log-batch-throttle-qps", FlagType::Float),
    ("audit-log-compress", FlagType::Bool),
    ("audit-log-format", FlagType::Text),
    ("audit-log-maxage", FlagType::Int),
    ("audit-log-maxbackup", FlagType::Int),
    ("audit-log-maxsize", FlagType::Int),
    ("audit-log-mode", FlagType::Text),
    ("audit-log-path", FlagType::Text),
    ("audit-log-truncate-enabled", FlagType::Bool),
    ("audit-log-truncate-max-batch-size", FlagType::Int),
    ("audit-log-truncate-max-event-size", FlagType::Int),
    ("audit-log-version", FlagType::Text),
    ("audit-policy-file", FlagType::Text),
    ("audit-webhook-batch-buffer-size", FlagType::Int),
    ("audit-webhook-batch-max-size", FlagType::Int),
    ("audit-webhook-batch-max-wait", FlagType::Duration),
    ("audit-webhook-batch-throttle-burst", FlagType::Int),
    ("audit-webhook-batch-throttle-enable", FlagType::Bool),
    ("audit-webhook-batch-throttle-qps", FlagType::Float),
    ("audit-webhook-config-file", FlagType::Text),
    ("audit-webhook-initial-backoff", FlagType::Duration),
    ("audit-webhook-mode", FlagType::Text),
    ("audit-webhook-truncate-enabled", FlagType::Bool),
    ("audit-webhook-truncate-max-batch-size", FlagType::Int),
    ("audit-webhook-truncate-max-event-size", FlagType::Int),
    ("audit-webhook-version", FlagType::Text),
    ("contention-profiling", FlagType::Bool),
    ("debug-socket-path", FlagType::Text),
    ("enable-pprof", FlagType::Bool),
    ("enable-priority-and-fairness", FlagType::Bool),
    ("legacy-stderr-threshold-behavior", FlagType::Bool),
    ("log-backtrace-at", FlagType::TraceLocation),
    ("log-dir", FlagType::Text),
    ("log-file", FlagType::Text),
    ("log-file-max-size", FlagType::Uint),
    ("log-flush-frequency", FlagType::Duration),
    ("log-json-info-buffer-size", FlagType::Quantity),
    ("log-json-split-stream", FlagType::Bool),
    ("log-text-info-buffer-size", FlagType::Quantity),
    ("log-text-split-stream", FlagType::Bool),
    ("logtostderr", FlagType::Bool),
    ("one-output", FlagType::Bool),
    ("permit-address-sharing", FlagType::Bool),
    ("permit-port-sharing", FlagType::Bool),
    ("profiling", FlagType::Bool),
    ("profiling-bind-address", FlagType::Text),
    ("skip-headers", FlagType::Bool),
    ("skip-log-headers", FlagType::Bool),
    ("stderrthreshold", FlagType::Severity),
    ("tls-curve-preferences", FlagType::Ints),
    ("tls-sni-cert-key", FlagType::CertificateAndKey),
    ("vmodule", FlagType::ModuleLevels),
];

/// The warnings about ignored flags.
pub const WARNINGS: &[IgnoredFlagWarning] = &[
    IgnoredFlagWarning {
        sentence: "the adapter writes no audit log; Karmada's API server can audit the same requests",
        // Karmada's built-in adapter also audits nothing without a policy. Karmada's manifests only set the path to `-`.
        flags: &[("audit-policy-file", ""), ("audit-webhook-config-file", ""), ("audit-log-path", "-")],
    },
    IgnoredFlagWarning {
        sentence: "logs are written to stderr only, not to files",
        flags: &[("log-dir", ""), ("log-file", ""), ("logtostderr", "true")],
    },
    IgnoredFlagWarning {
        sentence: "every client gets the certificate of --tls-cert-file, for any server name",
        flags: &[("tls-sni-cert-key", "")],
    },
    IgnoredFlagWarning {
        sentence: "the key exchange groups of TLS are not restricted",
        flags: &[("tls-curve-preferences", "")],
    },
];

impl IgnoredFlags {
    /// The flags' names without dashes.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|&(name, _)| name)
    }

    /// The warnings to log, each with the flags that cause it.
    pub fn warnings(&self) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
        WARNINGS.iter().filter_map(|warning| {
            let causes_warning = |&(flag, harmless): &(&str, &str)| {
                self.0.iter().any(|(name, value)| *name == flag && !value.is_empty() && value != harmless)
            };
            let flags = warning.flags.iter().copied().filter(causes_warning).map(|(flag, _)| flag);
            let flags = flags.collect::<Vec<_>>();
            (!flags.is_empty()).then_some((warning.sentence, flags))
        })
    }

    /// Logs the names of the ignored flags, and the warnings.
    pub fn log(&self) {
        let flags = self.names().collect::<Vec<_>>().join(",");
        if !flags.is_empty() {
            tracing::info!(flags, "ignored flags that have no effect in this adapter");
        }
        for (sentence, flags) in self.warnings() {
            tracing::warn!(flags = flags.join(","), "{sentence}");
        }
    }
}

impl clap::Args for IgnoredFlags {
    fn augment_args(command: Command) -> Command {
        command.args(TABLE.iter().map(|&(name, kind)| {
            let arg = Arg::new(name).long(name).hide(true);
            match kind {
                FlagType::Bool => arg.action(ArgAction::SetTrue),
                _ => arg.action(ArgAction::Append).value_parser(move |text: &str| kind.check(text)),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for IgnoredFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let set = |&(name, kind): &(&'static str, FlagType)| {
            let given = matches.value_source(name) == Some(ValueSource::CommandLine);
            let value = match kind {
                // A boolean value has several spellings.
                FlagType::Bool => matches.get_flag(name).to_string(),
                _ => matches.get_raw(name)?.next_back()?.to_string_lossy().into_owned(),
            };
            given.then_some((name, value))
        };
        Ok(Self(TABLE.iter().filter_map(set).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl FlagType {
    fn check(self, text: &str) -> Result<(), FlagValueError> {
        let (is_valid, complaint) = match self {
            Self::Bool => return values::boolean(text).map(drop),
            Self::Int => return values::int(text).map(drop),
            Self::Uint => return values::uint(text).map(drop),
            Self::Float => return values::float(text).map(drop),
            Self::Duration => {
                (text.parse::<GoDuration>().is_ok(), "is not a duration (such as 500ms, 5s or 1m30s)")
            }
            Self::Quantity => (text.parse::<Quantity>().is_ok(), "is not a quantity (such as 512Ki)"),
            Self::Text => (true, ""),
            Self::Severity => {
                (is_severity(text), "is not a severity (INFO, WARNING, ERROR, FATAL or a number)")
            }
            Self::TraceLocation => {
                (text.is_empty() || is_trace_location(text), "is not a source location (such as file.go:10)")
            }
            Self::ModuleLevels => {
                (is_module_levels(text), "is not a list of log levels (such as pattern=2,other=4)")
            }
            Self::Ints => (text.split(',').all(is_int32), "is not a list of whole numbers (such as 23,29)"),
            Self::CertificateAndKey => {
                let (files, _) = text.split_once(':').unwrap_or((text, ""));
                (files.contains(','), "is not a certificate and a key (such as tls.crt,tls.key:example.com)")
            }
        };
        if is_valid { Ok(()) } else { Err(complaint) }
    }
}

/// `severityValue.Set` of k8s.io/klog.
fn is_severity(text: &str) -> bool {
    ["INFO", "WARNING", "ERROR", "FATAL"].contains(&text.to_uppercase().as_str()) || is_int32(text)
}

/// `traceLocation.Set` of k8s.io/klog.
fn is_trace_location(text: &str) -> bool {
    let parts = text.split_once(':');
    parts.is_some_and(|(file, line)| file.contains('.') && line.parse::<u32>().is_ok_and(|line| line > 0))
}

/// `moduleSpec.Set` of k8s.io/klog.
fn is_module_levels(text: &str) -> bool {
    let is_module_level =
        |(pattern, level): (&str, &str)| !pattern.is_empty() && level.parse::<u32>().is_ok();
    text.split(',').all(|part| part.is_empty() || part.split_once('=').is_some_and(is_module_level))
}

fn is_int32(text: &str) -> bool {
    values::level(text).is_ok()
}

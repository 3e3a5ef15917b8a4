//! The flags of the reference that mean nothing here. They are accepted with a value of their type, so that a
//! Deployment that sets them starts; help does not show them. Where silence would let an operator believe something
//! that is not so, it is said as a warning.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

use super::values::{self, FlagValueError};
use crate::api::duration::GoDuration;
use crate::api::quantity::Quantity;

/// The ones that were set, and their last values, as clap's derive flattens them into the command line.
#[derive(Clone, Debug)]
pub struct IgnoredFlags(Vec<(&'static str, String)>);

/// What is so, whatever these flags say.
pub struct IgnoredFlagWarning {
    /// A whole sentence.
    pub sentence: &'static str,
    /// Each with the value, beside the empty one, that leads nobody astray.
    pub flags: &'static [(&'static str, &'static str)],
}

/// What a flag's value has to be.
#[derive(Clone, Copy)]
enum FlagType {
    Bool,
    Int,
    Uint,
    Float,
    Duration,
    Quantity,
    Text,
    /// klog: a level's name or number.
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

/// What silence would hide.
pub const WARNINGS: &[IgnoredFlagWarning] = &[
    IgnoredFlagWarning {
        sentence: "nothing is audited here; Karmada's API server can audit the requests that it passes on",
        // The reference, too, audits nothing without a policy, and Karmada's manifests have no more than a path of -.
        flags: &[("audit-policy-file", ""), ("audit-webhook-config-file", ""), ("audit-log-path", "-")],
    },
    IgnoredFlagWarning {
        sentence: "logs go to stderr and to no file",
        flags: &[("log-dir", ""), ("log-file", ""), ("logtostderr", "true")],
    },
    IgnoredFlagWarning {
        sentence: "every client is shown the certificate of --tls-cert-file, whatever name it asks for",
        flags: &[("tls-sni-cert-key", "")],
    },
    IgnoredFlagWarning {
        sentence: "the groups that a key exchange may use are not limited",
        flags: &[("tls-curve-preferences", "")],
    },
];

impl IgnoredFlags {
    /// The flags' names without dashes.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|&(name, _)| name)
    }

    /// What has to be said of them, and which of them each sentence is about.
    pub fn warnings(&self) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
        WARNINGS.iter().filter_map(|truth| {
            let misleads = |&(flag, harmless): &(&str, &str)| {
                self.0.iter().any(|(name, value)| *name == flag && !value.is_empty() && value != harmless)
            };
            let flags = truth.flags.iter().copied().filter(misleads).map(|(flag, _)| flag);
            let flags = flags.collect::<Vec<_>>();
            (!flags.is_empty()).then_some((truth.sentence, flags))
        })
    }

    /// Says it all in the log.
    pub fn log(&self) {
        let flags = self.names().collect::<Vec<_>>().join(",");
        if !flags.is_empty() {
            tracing::info!(flags, "flags without a meaning here are accepted and ignored");
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
                // It has more than one spelling.
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
        let (right, complaint) = match self {
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
                (text.is_empty() || is_trace_location(text), "is not a place (such as file.go:10)")
            }
            Self::ModuleLevels => {
                (is_module_levels(text), "is not a list of levels (such as pattern=2,other=4)")
            }
            Self::Ints => (text.split(',').all(is_int32), "is not a list of whole numbers (such as 23,29)"),
            Self::CertificateAndKey => {
                let (files, _) = text.split_once(':').unwrap_or((text, ""));
                (
                    files.contains(','),
                    "is not a certificate and its key (such as tls.crt,tls.key:example.com)",
                )
            }
        };
        if right { Ok(()) } else { Err(complaint) }
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

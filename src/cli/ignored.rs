//! The flags of the reference that mean nothing here. They are accepted with a value of their type, so that a
//! Deployment that sets them starts; help does not show them. Where silence would let an operator believe something
//! that is not so, it is said as a warning.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

use super::values::{self, Complaint};
use crate::api::duration::GoDuration;
use crate::api::quantity::Quantity;

/// The ones that were set, and their last values, as clap's derive flattens them into the command line.
#[derive(Clone, Debug)]
pub struct Ignored(Vec<(&'static str, String)>);

/// What is so, whatever these flags say.
pub struct Truth {
    /// A whole sentence.
    pub sentence: &'static str,
    /// Each with the value, beside the empty one, that leads nobody astray.
    pub flags: &'static [(&'static str, &'static str)],
}

/// What a flag's value has to be.
#[derive(Clone, Copy)]
enum Kind {
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

const TABLE: &[(&str, Kind)] = &[
    ("add-dir-header", Kind::Bool),
    ("alsologtostderr", Kind::Bool),
    ("alsologtostderrthreshold", Kind::Severity),
    ("audit-log-batch-buffer-size", Kind::Int),
    ("audit-log-batch-max-size", Kind::Int),
    ("audit-log-batch-max-wait", Kind::Duration),
    ("audit-log-batch-throttle-burst", Kind::Int),
    ("audit-log-batch-throttle-enable", Kind::Bool),
    ("audit-log-batch-throttle-qps", Kind::Float),
    ("audit-log-compress", Kind::Bool),
    ("audit-log-format", Kind::Text),
    ("audit-log-maxage", Kind::Int),
    ("audit-log-maxbackup", Kind::Int),
    ("audit-log-maxsize", Kind::Int),
    ("audit-log-mode", Kind::Text),
    ("audit-log-path", Kind::Text),
    ("audit-log-truncate-enabled", Kind::Bool),
    ("audit-log-truncate-max-batch-size", Kind::Int),
    ("audit-log-truncate-max-event-size", Kind::Int),
    ("audit-log-version", Kind::Text),
    ("audit-policy-file", Kind::Text),
    ("audit-webhook-batch-buffer-size", Kind::Int),
    ("audit-webhook-batch-max-size", Kind::Int),
    ("audit-webhook-batch-max-wait", Kind::Duration),
    ("audit-webhook-batch-throttle-burst", Kind::Int),
    ("audit-webhook-batch-throttle-enable", Kind::Bool),
    ("audit-webhook-batch-throttle-qps", Kind::Float),
    ("audit-webhook-config-file", Kind::Text),
    ("audit-webhook-initial-backoff", Kind::Duration),
    ("audit-webhook-mode", Kind::Text),
    ("audit-webhook-truncate-enabled", Kind::Bool),
    ("audit-webhook-truncate-max-batch-size", Kind::Int),
    ("audit-webhook-truncate-max-event-size", Kind::Int),
    ("audit-webhook-version", Kind::Text),
    ("contention-profiling", Kind::Bool),
    ("debug-socket-path", Kind::Text),
    ("enable-pprof", Kind::Bool),
    ("enable-priority-and-fairness", Kind::Bool),
    ("legacy-stderr-threshold-behavior", Kind::Bool),
    ("log-backtrace-at", Kind::TraceLocation),
    ("log-dir", Kind::Text),
    ("log-file", Kind::Text),
    ("log-file-max-size", Kind::Uint),
    ("log-flush-frequency", Kind::Duration),
    ("log-json-info-buffer-size", Kind::Quantity),
    ("log-json-split-stream", Kind::Bool),
    ("log-text-info-buffer-size", Kind::Quantity),
    ("log-text-split-stream", Kind::Bool),
    ("logtostderr", Kind::Bool),
    ("one-output", Kind::Bool),
    ("permit-address-sharing", Kind::Bool),
    ("permit-port-sharing", Kind::Bool),
    ("profiling", Kind::Bool),
    ("profiling-bind-address", Kind::Text),
    ("skip-headers", Kind::Bool),
    ("skip-log-headers", Kind::Bool),
    ("stderrthreshold", Kind::Severity),
    ("tls-curve-preferences", Kind::Ints),
    ("tls-sni-cert-key", Kind::CertificateAndKey),
    ("vmodule", Kind::ModuleLevels),
];

/// What silence would hide.
pub const TRUTHS: &[Truth] = &[
    Truth {
        sentence: "nothing is audited here; Karmada's API server can audit the requests that it passes on",
        // The reference, too, audits nothing without a policy, and Karmada's manifests have no more than a path of -.
        flags: &[("audit-policy-file", ""), ("audit-webhook-config-file", ""), ("audit-log-path", "-")],
    },
    Truth {
        sentence: "logs go to stderr and to no file",
        flags: &[("log-dir", ""), ("log-file", ""), ("logtostderr", "true")],
    },
    Truth {
        sentence: "every client is shown the certificate of --tls-cert-file, whatever name it asks for",
        flags: &[("tls-sni-cert-key", "")],
    },
    Truth {
        sentence: "the groups that a key exchange may use are not limited",
        flags: &[("tls-curve-preferences", "")],
    },
];

impl Ignored {
    /// The flags' names without dashes.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|&(name, _)| name)
    }

    /// What has to be said of them, and which of them each sentence is about.
    pub fn truths(&self) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
        TRUTHS.iter().filter_map(|truth| {
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
        for (sentence, flags) in self.truths() {
            tracing::warn!(flags = flags.join(","), "{sentence}");
        }
    }
}

impl clap::Args for Ignored {
    fn augment_args(command: Command) -> Command {
        command.args(TABLE.iter().map(|&(name, kind)| {
            let arg = Arg::new(name).long(name).hide(true);
            match kind {
                Kind::Bool => arg.action(ArgAction::SetTrue),
                _ => arg.action(ArgAction::Append).value_parser(move |text: &str| kind.check(text)),
            }
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Ignored {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let set = |&(name, kind): &(&'static str, Kind)| {
            let given = matches.value_source(name) == Some(ValueSource::CommandLine);
            let value = match kind {
                // It has more than one spelling.
                Kind::Bool => matches.get_flag(name).to_string(),
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

impl Kind {
    fn check(self, text: &str) -> Result<(), Complaint> {
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

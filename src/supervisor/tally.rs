//! What is counted of launches, for Prometheus: how long each part of the wait of a job takes, and how launches end.

use std::{fmt::Write as _, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::record::Times;
use crate::model::time::Timestamp;

/// Bounds of waits, in seconds.
const SECONDS: [f64; 11] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// A part of the time that a job waits for its first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Until a look has seen it in the forge's queue.
    Discovery,
    /// Until its job of the engine is there.
    Job,
    /// Until the runner's image is there.
    Pull,
    /// Until the forge has registered the runner.
    Mint,
    /// Until the runner is started.
    Start,
    /// Until the forge has given it a job, as far as a look has seen.
    Assign,
}

/// How a launch came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The forge says of its job that it has succeeded.
    Success,
    /// That it has failed.
    Failure,
    /// That it was cancelled.
    Cancelled,
    /// Something else, or nothing.
    Unknown,
    /// It was launched, and had no job.
    NoJob,
    /// It could not be launched.
    NotLaunched,
}

/// What became of a delivery of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The forge is looked at.
    Taken,
    /// It has come before.
    Known,
    /// It is of something else than jobs.
    Ignored,
    /// Its signature is wrong, or it has none.
    Unsigned,
    /// It is signed, and cannot be read.
    Garbage,
}

/// The words of an enum.
macro_rules! words {
    ($name:ident { $($variant:ident => $word:literal,)+ }) => {
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                encoder.write_str(match self { $(Self::$variant => $word,)+ })
            }
        }
    };
}

words!(Part {
    Discovery => "discovery",
    Job => "job",
    Pull => "pull",
    Mint => "mint",
    Start => "start",
    Assign => "assign",
});
words!(End {
    Success => "success",
    Failure => "failure",
    Cancelled => "cancelled",
    Unknown => "unknown",
    NoJob => "no_job",
    NotLaunched => "not_launched",
});
words!(Verdict {
    Taken => "taken",
    Known => "known",
    Ignored => "ignored",
    Unsigned => "unsigned",
    Garbage => "garbage",
});

impl End {
    /// By the forge's word, or what stands for it.
    pub fn of_job(conclusion: &str) -> Self {
        match conclusion {
            "success" => Self::Success,
            "failure" => Self::Failure,
            "cancelled" => Self::Cancelled,
            _ => Self::Unknown,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    forge: String,
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    forge: String,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    forge: String,
    verdict: Verdict,
}

/// The numbers of all forges. Clones share them.
#[derive(Clone)]
pub struct Tally {
    waits: Family<WaitLabels, Histogram, fn() -> Histogram>,
    ends: Family<EndLabels, Counter>,
    hooks: Family<HookLabels, Counter>,
}

impl Default for Tally {
    fn default() -> Self {
        let waits = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        Self { waits, ends: Family::default(), hooks: Family::default() }
    }
}

impl Tally {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("wait_seconds", "Parts of the time that jobs waited for a runner", self.waits.clone());
        registry.register("launches_ended", "Launches that have ended, by how", self.ends.clone());
        registry.register("hook_deliveries", "Deliveries of webhooks, by what became of them", self.hooks.clone());
    }

    /// A part of a wait.
    pub fn waited(&self, forge: &str, part: Part, time: Duration) {
        let labels = WaitLabels { forge: forge.to_owned(), part };
        self.waits.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// What it took to start a runner.
    pub fn started(&self, forge: &str, times: &Times) {
        let steps = [
            (Part::Job, Some(times.begun), times.made),
            (Part::Pull, times.made, times.pulled),
            (Part::Mint, times.pulled, times.minted),
            (Part::Start, times.minted, times.started),
        ];
        for (part, from, to) in steps {
            self.between(forge, part, from, to);
        }
    }

    /// A runner has been given a job.
    pub fn assigned(&self, forge: &str, times: &Times) {
        self.between(forge, Part::Assign, times.started, times.assigned);
    }

    fn between(&self, forge: &str, part: Part, from: Option<Timestamp>, to: Option<Timestamp>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.waited(forge, part, to.since(from));
        }
    }

    /// A launch has ended.
    pub fn ended(&self, forge: &str, end: End) {
        self.ends.get_or_create(&EndLabels { forge: forge.to_owned(), end }).inc();
    }

    /// A delivery has come.
    pub fn delivered(&self, forge: &str, verdict: Verdict) {
        self.hooks.get_or_create(&HookLabels { forge: forge.to_owned(), verdict }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_split_into_its_parts() {
        let at = |seconds| Some(Timestamp::from_unix(seconds, 0));
        let times = Times {
            begun: Timestamp::from_unix(100, 0),
            made: at(101),
            pulled: at(111),
            minted: at(112),
            started: at(114),
            assigned: at(120),
            ended: None,
        };
        let (mut registry, tally) = (Registry::with_prefix("ringer"), Tally::default());
        tally.register(&mut registry);
        tally.started("gitea", &times);
        tally.assigned("gitea", &times);
        tally.ended("gitea", End::of_job("success"));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for (part, seconds) in [("job", "1.0"), ("pull", "10.0"), ("mint", "1.0"), ("start", "2.0"), ("assign", "6.0")]
        {
            let line = format!("ringer_wait_seconds_sum{{forge=\"gitea\",part=\"{part}\"}} {seconds}");
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(text.contains("ringer_launches_ended_total{forge=\"gitea\",end=\"success\"} 1"), "{text}");
    }
}

//! Deliveries of forges' webhooks: who they are from, and which job they tell of. Nothing is read of one before its signature is right.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ring::hmac;
use serde::Deserialize;

use super::secret::Secret;
use crate::model::{Error, ErrorKind, Result};

/// Deliveries that are known again.
const REMEMBERED: usize = 1000;

/// The longest number of a delivery: forges send UUIDs.
const NUMBER_LENGTH: usize = 100;

/// The event that tells of jobs.
pub const EVENT: &str = "workflow_job";

/// Where deliveries of a forge are taken, below an address of ours.
pub fn address(public_url: &str, forge: &str) -> String {
    format!("{public_url}/webhook/{forge}")
}

/// Between two warnings of deliveries that are not signed as they should be.
const WARNING: Duration = Duration::from_secs(60);

/// A request of a forge.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivery<'a> {
    /// `X-Hub-Signature-256`: what GitHub and Gitea sign it with.
    pub signature: Option<&'a str>,
    /// `X-GitHub-Event`.
    pub event: Option<&'a str>,
    /// `X-GitHub-Delivery`: its number.
    pub number: Option<&'a str>,
    /// Whether its body is a form, whose `payload` it is.
    pub is_form: bool,
    /// All of its body.
    pub body: &'a [u8],
}

/// A job of which a delivery tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookedJob {
    /// The forge's number of it.
    pub id: i64,
    /// `owner/name`.
    pub repository: String,
    /// The labels that it asks for.
    pub labels: Vec<String>,
    /// Whether it has ended.
    pub has_ended: bool,
}

/// What a delivery that is signed as it should be says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something has happened to a job.
    Of(HookedJob),
    /// It has come before.
    Known,
    /// Nothing of jobs.
    Nothing,
}

/// The ear for one forge.
pub struct Ear {
    key: hmac::Key,
    known: Mutex<Known>,
    warned: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    numbers: HashSet<String>,
    order: VecDeque<String>,
}

/// The part of the body that is read (`webhook-workflow-job-*` of GitHub's OpenAPI description; Gitea's `WorkflowJobPayload`).
#[derive(Deserialize)]
struct Payload {
    action: String,
    workflow_job: Job,
    repository: Repository,
}

#[derive(Deserialize)]
struct Job {
    id: i64,
    labels: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

impl Ear {
    /// For deliveries that are signed with this.
    pub fn new(secret: &Secret) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        Self { key, known: Mutex::default(), warned: Mutex::default() }
    }

    /// What a delivery says. 401 if it is not signed with the secret, 400 if it is and cannot be read.
    pub fn hear(&self, delivery: &Delivery<'_>) -> Result<Heard> {
        self.check(delivery)?;
        let number = delivery.number.filter(|number| !number.is_empty() && number.len() <= NUMBER_LENGTH);
        let number = number.ok_or_else(|| Error::invalid("a delivery without a number (X-GitHub-Delivery)"))?;
        if delivery.event != Some(EVENT) {
            return Ok(Heard::Nothing);
        }
        let job = read(delivery)?;
        // The number is not signed. Who has seen a delivery and sends it again under another one makes us look once more, and no more.
        Ok(if self.is_new(number) { Heard::Of(job) } else { Heard::Known })
    }

    /// Compared in constant time.
    fn check(&self, delivery: &Delivery<'_>) -> Result<()> {
        let refused =
            |why: &str| Error::new(ErrorKind::Unauthorized, format!("{why}: is webhook_secret the hook's secret?"));
        let signature =
            delivery.signature.ok_or_else(|| refused("the delivery has no signature (X-Hub-Signature-256)"))?;
        let tag = signature.strip_prefix("sha256=").and_then(bytes_of_hex);
        let is_right = tag.is_some_and(|tag| hmac::verify(&self.key, delivery.body, &tag).is_ok());
        if is_right { Ok(()) } else { Err(refused("the delivery's signature is wrong")) }
    }

    fn is_new(&self, number: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.numbers.insert(number.to_owned()) {
            return false;
        }
        known.order.push_back(number.to_owned());
        if known.order.len() > REMEMBERED
            && let Some(oldest) = known.order.pop_front()
        {
            known.numbers.remove(&oldest);
        }
        true
    }

    /// Whether a warning is due: strangers can send as much as they like.
    pub fn may_warn(&self) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = warned.is_none_or(|at| at.elapsed() >= WARNING);
        if is_due {
            *warned = Some(Instant::now());
        }
        is_due
    }
}

fn read(delivery: &Delivery<'_>) -> Result<HookedJob> {
    let garbage = |error: &dyn std::fmt::Display| Error::invalid(format!("the delivery cannot be read: {error}"));
    let payload: Payload = if delivery.is_form {
        let fields: Vec<(String, String)> =
            serde_urlencoded::from_bytes(delivery.body).map_err(|error| garbage(&error))?;
        let payload = fields.iter().find(|(name, _)| name == "payload");
        let (_, text) = payload.ok_or_else(|| garbage(&"the form has no payload"))?;
        serde_json::from_str(text).map_err(|error| garbage(&error))?
    } else {
        serde_json::from_slice(delivery.body).map_err(|error| garbage(&error))?
    };
    Ok(HookedJob {
        id: payload.workflow_job.id,
        repository: payload.repository.full_name,
        labels: payload.workflow_job.labels.unwrap_or_default(),
        has_ended: payload.action == "completed",
    })
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| Some((digit(*high)? << 4) | digit(*low)?)).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"action": "queued", "workflow_job": {"id": 7, "labels": ["linux"], "more": [{}]},
                           "repository": {"full_name": "acme/tool"}}"#;

    fn ear() -> Ear {
        Ear::new(&Secret::new("s3cr3t"))
    }

    fn signature(body: &str) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s3cr3t"), body.as_bytes());
        format!("sha256={}", tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn delivery<'a>(body: &'a str, signature: &'a str) -> Delivery<'a> {
        Delivery {
            signature: Some(signature),
            event: Some(EVENT),
            number: Some("1-2-3"),
            is_form: false,
            body: body.as_bytes(),
        }
    }

    fn status(error: &Error) -> ErrorKind {
        error.kind()
    }

    /// The example of GitHub's documentation.
    #[test]
    fn signatures_are_githubs() {
        let ear = Ear::new(&Secret::new("It's a Secret to Everybody"));
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(ear.check(&delivery("Hello, World!", signature)).is_ok());
        assert!(ear.check(&delivery("Hello, World?", signature)).is_err());
    }

    #[test]
    fn a_delivery_tells_of_a_job_once() {
        let (ear, signature) = (ear(), signature(BODY));
        let delivery = delivery(BODY, &signature);
        let job =
            HookedJob { id: 7, repository: "acme/tool".to_owned(), labels: vec!["linux".to_owned()], has_ended: false };
        assert_eq!(ear.hear(&delivery).unwrap(), Heard::Of(job.clone()));
        assert_eq!(ear.hear(&delivery).unwrap(), Heard::Known);
        let again = Delivery { number: Some("4"), ..delivery };
        assert_eq!(ear.hear(&again).unwrap(), Heard::Of(job));
        assert_eq!(ear.hear(&Delivery { event: Some("ping"), ..again }).unwrap(), Heard::Nothing);
    }

    #[test]
    fn forms_are_read_too() {
        let form = serde_urlencoded::to_string([("payload", BODY)]).unwrap();
        let signature = signature(&form);
        let delivery = Delivery { is_form: true, ..delivery(&form, &signature) };
        assert!(matches!(ear().hear(&delivery).unwrap(), Heard::Of(job) if job.id == 7));
    }

    #[test]
    fn what_is_not_signed_is_not_read() {
        for wrong in [None, Some(""), Some("sha256="), Some("sha256=zz"), Some("sha256=00"), Some("sha1=00")] {
            let garbage = Delivery { signature: wrong, ..delivery("{", "") };
            assert_eq!(status(&ear().hear(&garbage).unwrap_err()), ErrorKind::Unauthorized, "{wrong:?}");
        }
        let others = Ear::new(&Secret::new("another"));
        assert_eq!(status(&others.hear(&delivery(BODY, &signature(BODY))).unwrap_err()), ErrorKind::Unauthorized);
    }

    #[test]
    fn what_is_signed_and_garbage_is_said_to_be() {
        let deep = "[".repeat(100_000);
        for garbage in ["", "{", "[]", "{\"action\": 1}", r#"{"action": "queued", "workflow_job": null}"#, &deep] {
            let signature = signature(garbage);
            let delivery = delivery(garbage, &signature);
            assert_eq!(status(&ear().hear(&delivery).unwrap_err()), ErrorKind::InvalidParameter, "{garbage:.20}");
        }
        let signature = signature(BODY);
        let without = Delivery { number: None, ..delivery(BODY, &signature) };
        assert_eq!(status(&ear().hear(&without).unwrap_err()), ErrorKind::InvalidParameter);
    }

    #[test]
    fn only_so_many_deliveries_are_remembered() {
        let ear = ear();
        assert!((0..=REMEMBERED).all(|number| ear.is_new(&number.to_string())));
        assert!(ear.is_new("0") && !ear.is_new(&REMEMBERED.to_string()));
        assert_eq!(ear.known.lock().unwrap().numbers.len(), REMEMBERED);
    }
}

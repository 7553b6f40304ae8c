//! Sessions of scale sets: who has one is told of the set's jobs.

use serde_json::json;

use super::{Asked, Model, Reply, error, made};

pub struct Session {
    pub id: String,
    pub owner: String,
    pub token: String,
    /// Its token is good no more.
    pub is_expired: bool,
}

/// One session at a time [iss: actions-runner-controller#4285, "already has an active session"].
pub fn begin(model: &mut Model, asked: &Asked, id: i64) -> Reply {
    let Some(owner) = asked.body["ownerName"].as_str() else {
        return error(400, "ArgumentException", "ownerName is required.");
    };
    let number = model.number();
    let set = model.service.sets.get_mut(&id).expect("it is there");
    if set.session.is_some() {
        let words = format!("The actions runner scaleset {} already has an active session.", set.name);
        return error(409, "RunnerScaleSetSessionConflictException", &words);
    }
    set.session = Some(Session {
        id: format!("00000000-0000-0000-0000-{number:012}"),
        owner: owner.to_owned(),
        token: format!("queue-{number}"),
        is_expired: false,
    });
    model.service.begun += 1;
    model.hand_out(id);
    session(model, id)
}

pub fn refresh(model: &mut Model, id: i64, of: &str) -> Reply {
    let number = model.number();
    let set = model.service.sets.get_mut(&id).expect("it is there");
    let Some(held) = set.session.as_mut().filter(|held| held.id == of) else { return none() };
    (held.token, held.is_expired) = (format!("queue-{number}"), false);
    model.service.refreshed += 1;
    session(model, id)
}

/// [src: `RunnerScaleSetSession`]
fn session(model: &Model, id: i64) -> Reply {
    let held = model.service.sets[&id].session.as_ref().expect("it was begun");
    Reply::json(
        200,
        &json!({
            "sessionId": held.id, "ownerName": held.owner, "runnerScaleSet": made::described(model, id),
            "messageQueueUrl": format!("{}/_queue/{id}/message?sessionId={}", model.url, held.id),
            "messageQueueAccessToken": held.token, "statistics": model.statistics(id),
        }),
    )
}

/// [assumption: the status; its name is like that of a set that is not there]
pub fn none() -> Reply {
    error(404, "RunnerScaleSetSessionNotFoundException", "No such session.")
}

impl Model {
    /// Somebody else's session, in the place of any.
    pub fn hold_session(&mut self) {
        let set = self.service.sets.values_mut().next().expect("a scale set");
        let (id, owner, token) = ("another".to_owned(), "somebody".to_owned(), "another's".to_owned());
        set.session = Some(Session { id, owner, token, is_expired: false });
    }
}

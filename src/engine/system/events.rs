//! `GET /events`: the past that is still known, then what happens, through the query's sieve.

use futures_util::{Stream, StreamExt, stream};

use crate::{
    engine::{Engine, events::received, tenants::Scope},
    model::{
        event::{Event, EventType},
        filters::Filters,
        reference::Reference,
        time::Timestamp,
    },
};

/// Events in order.
pub type EventStream = std::pin::Pin<Box<dyn Stream<Item = Event> + Send>>;

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct EventsQuery {
    /// Not before; without it nothing of the past is told.
    pub since: Option<Timestamp>,
    /// Not after; then the stream ends.
    pub until: Option<Timestamp>,
    /// `type`, `event`, `container`, `image`, `network`, `volume`, `daemon`, `label`, `scope`; of swarm's kinds
    /// there are no events.
    pub filters: Filters,
}

impl Engine {
    /// The tenant's events. Ends with `until`, or when the daemon stops.
    pub fn system_events(&self, scope: &Scope, query: EventsQuery) -> EventStream {
        let (past, future) = self.events.subscribe(scope.tenant());
        let past = past.into_iter().filter(move |event| query.since.is_some_and(|since| event.time >= since));
        let events: EventStream = match query.until {
            Some(until) if until <= Timestamp::now() => {
                let past = past.take_while(move |event| event.time <= until);
                wanted(query.filters, stream::iter(past))
            }
            until => {
                let all = stream::iter(past).chain(received(future));
                wanted(query.filters, all.take_until(end(until)))
            }
        };
        Box::pin(events.take_until(self.stopping().cancelled_owned()))
    }
}

fn wanted(filters: Filters, events: impl Stream<Item = Event> + Send + 'static) -> EventStream {
    Box::pin(events.filter(move |event| std::future::ready(matches(&filters, event))))
}

async fn end(until: Option<Timestamp>) {
    match until {
        Some(until) => tokio::time::sleep(until.time_left()).await,
        None => std::future::pending().await,
    }
}

/// Actions that carry a command or a result behind a colon; for these the filter is a prefix.
const ACTIONS_WITH_TAIL: [&str; 3] = ["health_status", "exec_create", "exec_start"];

fn matches(filters: &Filters, event: &Event) -> bool {
    let attribute = |key: &str| event.attributes.get(key).map(String::as_str);
    let named = |kind: &str| {
        filters.matches_prefix(kind, &event.actor)
            || attribute("name").is_some_and(|name| filters.matches_prefix(kind, name))
    };
    let action = if filters.get("event").iter().any(|action| ACTIONS_WITH_TAIL.contains(&action.as_str())) {
        filters.matches_prefix("event", &event.action)
    } else {
        filters.matches_exact("event", &event.action)
    };
    action
        && filters.matches_exact("type", event.kind.as_str())
        && filters.matches_exact("scope", "local")
        && ["daemon", "container", "plugin", "volume", "network", "service", "node", "secret", "config"]
            .iter()
            .all(|kind| named(kind))
        && matches_image(filters, event)
        && filters.matches_labels(attribute)
}

/// Of an image event the name, of others the image they came from; each also without its tag.
fn matches_image(filters: &Filters, event: &Event) -> bool {
    let key = if event.kind == EventType::Image { "name" } else { "image" };
    let name = event.attributes.get(key).map(String::as_str).unwrap_or_default();
    [event.actor.as_str(), name]
        .iter()
        .any(|name| filters.matches_exact("image", name) || filters.matches_exact("image", &without_tag(name)))
}

fn without_tag(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar_name())
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;

    fn event(kind: EventType, action: &str, actor: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes: IndexMap<String, String> =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Event { kind, action: action.to_owned(), actor: actor.to_owned(), attributes, time: Timestamp::now() }
    }

    fn fits(filters: &str, event: &Event) -> bool {
        matches(&Filters::parse(filters).unwrap(), event)
    }

    #[test]
    fn filters_are_dockerds() {
        let die = event(EventType::Container, "die", "abc123", &[("name", "web"), ("image", "nginx:1"), ("a", "b")]);
        for yes in [
            "{}",
            r#"{"container":["abc"]}"#,
            r#"{"container":["web"]}"#,
            r#"{"type":["container"],"event":["start","die"]}"#,
            r#"{"image":["nginx"]}"#,
            r#"{"image":["nginx:1"]}"#,
            r#"{"label":["a=b"],"scope":["local"]}"#,
        ] {
            assert!(fits(yes, &die), "{yes}");
        }
        for no in [
            r#"{"container":["x"]}"#,
            r#"{"event":["di"]}"#,
            r#"{"type":["image"]}"#,
            r#"{"image":["ngin"]}"#,
            r#"{"label":["a=c"]}"#,
        ] {
            assert!(!fits(no, &die), "{no}");
        }
    }

    #[test]
    fn command_of_an_exec_may_be_left_out() {
        let exec = event(EventType::Container, "exec_start: sh -c true", "abc", &[]);
        assert!(fits(r#"{"event":["exec_start"]}"#, &exec));
        assert!(!fits(r#"{"event":["exec_star"]}"#, &exec));
    }
}

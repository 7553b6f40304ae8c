//! What is in gitlab-runner's `config.toml`: more than its flags can say, and its token, which an argument would show to everybody.

use serde_json::json;

use crate::supervisor::secret::Secret;

/// Services that are asked for with privileges: a Docker daemon of a job's own. Whoever may not have one is told by the refusal what to
/// write instead; without this it would start and fail in words that tell nobody why.
const PRIVILEGED: [&str; 2] = ["docker:*dind*", "**/docker:*dind*"];

/// For one runner, whose jobs run in `image` if they name none.
pub fn of(name: &str, url: &str, token: &Secret, image: &str) -> Secret {
    let socket = "/var/run/docker.sock";
    let config = json!({
        "concurrent": 1,
        "runners": [{
            "name": name,
            "url": url,
            "token": token.reveal(),
            "executor": "docker",
            "docker": {
                "host": format!("unix://{socket}"),
                "image": image,
                "privileged": false,
                "services_privileged": true,
                "allowed_privileged_services": PRIVILEGED,
                // The job's own: so steps need no daemon of theirs.
                "volumes": ["/cache", format!("{socket}:{socket}")],
            },
        }],
    });
    Secret::new(toml::to_string(&config).expect("it has tables and texts alone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tokens_are_quoted() {
        let text = of("a", "https://git.example.org", &Secret::new("glrt-\"x"), "alpine");
        let read: toml::Value = toml::from_str(text.reveal()).unwrap();
        assert_eq!(read["runners"][0]["token"].as_str(), Some("glrt-\"x"));
        assert_eq!(
            read["runners"][0]["docker"]["volumes"][1].as_str(),
            Some("/var/run/docker.sock:/var/run/docker.sock")
        );
    }
}

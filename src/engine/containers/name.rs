//! Names of containers: their rules, made-up ones, and `POST /containers/{id}/rename`.

use crate::{
    engine::{Engine, tenants::Scope},
    model::{Error, Result, id::ContainerId},
};

const QUALITIES: [&str; 32] = [
    "amber", "brisk", "calm", "candid", "clever", "cosy", "curious", "deft", "eager", "fond", "frosty", "gentle",
    "glad", "hardy", "honest", "jolly", "keen", "lively", "lucid", "mellow", "nimble", "patient", "plucky", "proud",
    "quiet", "rapid", "sober", "spry", "steady", "sunny", "tidy", "witty",
];

const BIRDS: [&str; 32] = [
    "avocet",
    "bittern",
    "bunting",
    "chough",
    "crane",
    "curlew",
    "dipper",
    "dunlin",
    "falcon",
    "finch",
    "godwit",
    "goshawk",
    "heron",
    "hoopoe",
    "ibis",
    "jackdaw",
    "kestrel",
    "lapwing",
    "linnet",
    "martin",
    "merlin",
    "nuthatch",
    "oriole",
    "osprey",
    "pipit",
    "plover",
    "raven",
    "sandpiper",
    "shrike",
    "siskin",
    "swift",
    "wren",
];

/// How many made-up names are tried before a part of the id is taken.
const TRIES: usize = 6;

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, after one leading slash.
pub(crate) fn check_name(text: &str) -> Result<&str> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let fits = name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if fits {
        return Ok(name);
    }
    Err(Error::invalid(format!("Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

impl Engine {
    /// Takes the wanted name, or one that is made up.
    pub(crate) fn take_name(&self, scope: &Scope, wanted: Option<&str>, id: &ContainerId) -> Result<String> {
        if let Some(wanted) = wanted.filter(|name| !name.is_empty()) {
            let name = check_name(wanted)?;
            self.containers.reserve_name(scope.tenant(), name, id)?;
            return Ok(name.to_owned());
        }
        for _ in 0..TRIES {
            let name = made_up_name();
            if self.containers.reserve_name(scope.tenant(), &name, id).is_ok() {
                return Ok(name);
            }
        }
        self.containers.reserve_name(scope.tenant(), id.short(), id)?;
        Ok(id.short().to_owned())
    }

    /// Gives a container another name.
    pub async fn container_rename(&self, scope: &Scope, reference: &str, new_name: &str) -> Result<()> {
        if new_name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let container = self.containers.get(scope.tenant(), reference)?;
        let refused = |error: Error| error.context("Error when allocating new name");
        let wire = format!("/{}", new_name.strip_prefix('/').unwrap_or(new_name));
        let name = check_name(&wire).map_err(refused)?.to_owned();
        let engine = self.clone();
        let scope = scope.clone();
        self.run("container_rename", async move {
            let turn = container.turn().await?;
            let old = turn.record().name.clone();
            if old == name {
                return Err(Error::invalid("Renaming a container with the same name as its current name"));
            }
            turn.make_room(name.len()).map_err(refused)?;
            engine.containers.reserve_name(scope.tenant(), &name, container.id()).map_err(refused)?;
            turn.update(|record| record.name.clone_from(&name));
            if let Err(error) = turn.store(&*engine.backends.runtime).await {
                turn.update(|record| record.name.clone_from(&old));
                engine.containers.release_name(scope.tenant(), &name, container.id());
                return Err(error);
            }
            engine.containers.release_name(scope.tenant(), &old, container.id());
            engine.refresh_names(scope.tenant()).await;
            engine.events.container(&container.record(), "rename", &[("oldName", format!("/{old}"))]);
            Ok(())
        })
        .await
    }
}

fn made_up_name() -> String {
    let mut random = [0u8; 2];
    getrandom::fill(&mut random).expect("the kernel's random source is always there");
    let pick = |list: &[&'static str; 32], byte: u8| list[usize::from(byte) % 32];
    format!("{}_{}", pick(&QUALITIES, random[0]), pick(&BIRDS, random[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "/web-1", "A.b_c"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["a", "", "-ab", "a b", "a/b", "//ab"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}

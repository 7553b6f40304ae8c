//! Keeps the house in order: imports point down, a few crates stay in their rooms, and the tests that documents name are there. See
//! `docs/architecture.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Modules from top to bottom. A module may use those of lower levels, and itself.
const LEVELS: [&[&str]; 7] = [
    &["model"],
    // Level 1, in two halves: what the traits speak of (a root's mounts, say) is known to the small pieces.
    &["backend", "descriptors", "processes", "work"],
    &["dns", "dockerfile", "logs", "oci", "policy", "registry", "rootfs"],
    &["buildkit", "containerd", "engine", "network"],
    &["edge", "supervisor"],
    &["admin", "api", "web"],
    &["app", "cli", "config", "main"],
];

/// Rooms of the engine from bottom to top, by the same rule.
const FLOORS: [&[&str]; 10] = [
    &["quota", "scoped"],
    &["config", "events", "host", "layers", "locks", "prune", "records", "room", "tenants"],
    &["container", "ipam", "policies"],
    &["store"],
    &["images", "networks", "volumes"],
    &["runs"],
    &["containers"],
    &["build"],
    &["system"],
    &["jobs"],
];

/// Crates and the only modules that may use them.
const ROOMS: [(&str, &[&str]); 5] = [
    ("axum", &["admin", "api", "edge", "web"]),
    // containerd: only to tell a broken connection from an answer, by the type of the error below tonic's. cli: to take a connection over.
    ("hyper", &["api", "buildkit", "cli", "containerd", "edge"]),
    ("bollard_stubs", &["api"]),
    ("containerd_client", &["containerd", "buildkit"]),
    ("tonic", &["containerd", "buildkit"]),
];

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    sources_below("src")
}

fn sources_below(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let first = path.strip_prefix(&root).unwrap().iter().next().unwrap().to_str().unwrap();
                let module = first.trim_end_matches(".rs").to_owned();
                sources.push(Source { text: fs::read_to_string(&path).unwrap(), module, path });
            }
        }
    }
    sources
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|modules| modules.contains(&module))
}

/// Names that follow `prefix` in the code: `crate::` gives the modules of every path, and of every group in braces.
fn names_after(text: &str, prefix: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.push(word(rest)),
        }
    }
    names
}

/// First words of the items of a group, whose opening brace is already taken off.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut item) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(std::mem::take(&mut item)),
            c => item.push(c),
        }
    }
    heads.push(item);
    heads.iter().map(|head| word(head.trim_start())).filter(|head| !head.is_empty()).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Who changes a container has its turn: nothing else stores what is known of one.
#[test]
fn records_of_containers_are_stored_by_who_has_the_turn() {
    let of_engine = sources().into_iter().filter(|source| source.module == "engine");
    let storing = of_engine.filter(|source| source.text.contains(".update_record("));
    let storing: Vec<_> = storing.map(|source| source.path).collect();
    assert!(
        storing.iter().all(|path| path.ends_with("engine/container/turn.rs")) && storing.len() == 1,
        "container records are stored by a Turn alone: {storing:?}"
    );
}

#[test]
fn every_module_has_a_level() {
    for source in sources() {
        let known = source.module == "lib" || level(&source.module).is_some();
        assert!(known, "{} belongs to no level: add it to tests/levels.rs", source.path.display());
    }
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        let own = level(&source.module).unwrap_or_default();
        // The program's own modules reach the library by its name.
        for used in names_after(&source.text, "crate::").into_iter().chain(names_after(&source.text, "ringer::")) {
            let same_room = used == source.module || own == LEVELS.len() - 1;
            if !same_room && level(&used).is_some_and(|used| used >= own) {
                wrong.push(format!("{}: {} uses {used}", source.path.display(), source.module));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

/// `docs/security.md` names a test, or a module of tests, for each promise and each attack; so does the test of scopes for a call that
/// others stand for.
#[test]
fn promises_name_tests_that_are_there() {
    let (page, scope) = (include_str!("../docs/security.md"), include_str!("../src/api/tests/scope.rs"));
    let promised = page.split('`').skip(1).step_by(2).filter(|name| name.contains("::"));
    let asked = scope.split("Elsewhere(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let (promised, asked): (Vec<&str>, Vec<&str>) = (promised.collect(), asked.collect());
    assert!(promised.len() > 40 && asked.len() > 3, "{} {}", promised.len(), asked.len());
    let all: Vec<Source> = ["src", "tests"].into_iter().flat_map(sources_below).collect();
    for name in promised.into_iter().chain(asked) {
        let name = name.trim_end_matches("::");
        let (room, last) =
            name.rsplit_once("::").map_or(("", name), |(way, last)| (way.split("::").next().unwrap_or_default(), last));
        let there = all.iter().any(|source| {
            let (test, module) = (format!("fn {last}("), format!("mod {last};"));
            source.path.to_string_lossy().contains(room)
                && (source.text.contains(&test) || source.text.contains(&module))
        });
        assert!(there, "{name} is named as a test, and is not there");
    }
}

/// The room of the engine that a file belongs to.
fn floor_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine")).ok()?;
    let room = below.iter().next()?.to_str()?.trim_end_matches(".rs");
    // Tests and their fakes use what they need.
    (room != "testing" && !below.to_string_lossy().contains("tests")).then(|| room.to_owned())
}

/// What a file uses of the engine: by `crate::engine::x`, by `engine::x` in a group of `crate::`, or, of a room's first file, by `super::x`.
fn rooms_used(source: &Source) -> Vec<String> {
    let code = source.text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    let mut names = names_after(code, "crate::engine::");
    names.extend(names_after(code, "engine::"));
    if source.path.parent().is_some_and(|folder| folder.ends_with("src/engine")) {
        names.extend(names_after(code, "super::"));
    }
    names
}

#[test]
fn imports_inside_the_engine_point_down() {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(room) = floor_of(&source.path) else { continue };
        let Some(own) = floor(&room) else {
            wrong.push(format!("{room} has no floor: add it to tests/levels.rs"));
            continue;
        };
        for used in rooms_used(&source) {
            if used != room && floor(&used).is_some_and(|used| used >= own) {
                wrong.push(format!("{}: {room} uses {used}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, rooms) in ROOMS {
            let used = source.text.contains(&format!("use {name}::"))
                || !names_after(&source.text, &format!("{name}::")).is_empty();
            if used && !rooms.contains(&source.module.as_str()) {
                wrong.push(format!("{} uses {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "crates outside their rooms:\n{}", wrong.join("\n"));
}

#[test]
fn groups_are_read() {
    assert_eq!(
        names_after("use crate::{\n    a::{b, c},\n    d,\n};\nlet x = crate::e::f; // crate::g", "crate::"),
        ["a", "d", "e"]
    );
    assert!(names_after("mycrate::x $crate::y", "crate::").contains(&"y".to_owned()));
}

/// Files in which a job may put a link under any name: what describes one goes by its descriptor.
#[test]
fn files_of_containers_are_described_by_descriptor() {
    const BY_NAME: [&str; 14] = [
        "chmodat(",
        "chownat(",
        "utimensat(",
        "getxattr(",
        "setxattr(",
        "listxattr(",
        "removexattr(",
        "chmod(",
        "chown(",
        "fs::metadata(",
        "set_permissions(",
        "fs::read(",
        "read_to_string(",
        "read_dir(",
    ];
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.to_string_lossy();
        if source.module != "rootfs" || path.contains("/tests") || path.ends_with("/attributes.rs") {
            continue;
        }
        let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            // `fgetxattr(` and `fchmod(` take a descriptor.
            let by_name = |call: &&&str| line.match_indices(**call).any(|(at, _)| !line[..at].ends_with('f'));
            if let Some(call) = BY_NAME.iter().find(by_name) {
                wrong.push(format!("{path}: {call}"));
            }
        }
    }
    assert!(wrong.is_empty(), "calls by name, see src/rootfs/attributes.rs:\n{}", wrong.join("\n"));
}

/// Between these lines of `docs/architecture.md` stands the picture.
const PICTURE: (&str, &str) = ("<!-- made by `make picture` -->\n", "<!-- end of the picture -->\n");

/// Modules that a module reaches through others: an arrow of its own would say nothing more.
fn reached(from: &str, arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(module) = open.pop() {
        for next in arrows.get(&module).into_iter().flatten() {
            if found.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    found
}

/// The rooms and who uses whom, in the language of Mermaid. What the program's own modules are is one room.
fn picture() -> String {
    let top = LEVELS.len() - 1;
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        let code = source.text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
        let is_program = level(&source.module) == Some(top);
        let prefix = if is_program { "ringer::" } else { "crate::" };
        let room = if is_program { "program".to_owned() } else { source.module.clone() };
        let used = names_after(code, prefix).into_iter().filter(|used| level(used).is_some());
        arrows.entry(room.clone()).or_default().extend(used.filter(|used| *used != room));
    }
    let mut lines = vec!["```mermaid".to_owned(), "flowchart TD".to_owned()];
    for (number, modules) in LEVELS.iter().enumerate().rev() {
        let modules: &[&str] = if number == top { &["program"] } else { modules };
        let there: Vec<&str> = modules.iter().copied().filter(|module| arrows.contains_key(*module)).collect();
        lines.push(format!("    subgraph level{number}[ ]\n        {}\n    end", there.join("\n        ")));
    }
    for (from, used) in &arrows {
        let implied: BTreeSet<String> = used.iter().flat_map(|module| reached(module, &arrows)).collect();
        lines.extend(used.difference(&implied).map(|to| format!("    {from} --> {to}")));
    }
    lines.push("```\n".to_owned());
    lines.join("\n")
}

/// `make picture` writes it.
#[test]
fn picture_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(PICTURE.0).expect("the picture's first line");
    let (shown, after) = rest.split_once(PICTURE.1).expect("the picture's last line");
    let made = picture();
    if std::env::var_os("RINGER_WRITE_PICTURE").is_some() {
        fs::write(&path, [before, PICTURE.0, &made, PICTURE.1, after].concat()).unwrap();
    } else {
        assert!(shown == made, "docs/architecture.md shows another house: run `make picture`");
    }
}

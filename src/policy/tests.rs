//! Tests of policies as files. What the built-in ones let through is asked through the API (`api::tests::policy`).

use super::*;

#[test]
fn built_in_policies_have_every_rule() {
    for which in BuiltIn::ALL {
        let policy = built_in(which);
        let missing: Vec<_> = Key::ALL.iter().filter(|key| !policy.rules.contains_key(key)).collect();
        assert!(missing.is_empty(), "{} lacks {missing:?}", policy.name);
    }
    let refusing: Vec<_> =
        trusted().rules.iter().filter(|(_, rule)| **rule != Rule::All(true)).map(|(key, _)| *key).collect();
    assert_eq!(refusing, [Key::MachinePorts], "jobs have that of their own, and two of them one port");
}

#[test]
fn what_is_no_rule_is_an_error_that_names_the_line() {
    let table = [
        (
            "privileged = true\nprivilegd = true\n",
            "policy x: line 2: unknown key privilegd: expected base or one of privileged",
        ),
        ("# a\n\nbase = \"none\"\n", "policy x: line 3: base is"),
        ("devices = [\n  \"/dev/fuse\",\n  \"fuse\",\n]\n", "policy x: line 3: devices: \"fuse\": expected a path"),
        ("privileged = [\"yes\"]\n", "policy x: line 1: privileged: \"yes\": this rule is true or false"),
        ("update = \"memory\"\n", "policy x: line 1: update: expected true, false or a list"),
        ("ulimits = [1]\n", "policy x: line 1: ulimits: entries are strings"),
        ("privileged = \n", "line 1"),
    ];
    for (text, expected) in table {
        let error = parse("x", text).unwrap_err();
        assert!(error.message().contains(expected), "{}", error.message());
    }
}

#[test]
fn a_file_has_the_rules_of_its_base_but_for_its_own() {
    let policy = parse(
        "x",
        "privileged = true\ncapabilities = [\"...\", \"SYS_PTRACE\"]\nregistries = [\"...\", \"!evil.test\"]",
    )
    .unwrap();
    assert_eq!((policy.base, &policy.rules[&Key::Devices]), (BuiltIn::Ci, &Rule::All(false)));
    assert_eq!(policy.rules[&Key::Privileged], Rule::All(true));
    let word = |key, word: &str| Demand { key, value: Value::Word(word.to_owned()) };
    for (demand, expected) in [
        (word(Key::Capabilities, "SYS_PTRACE"), true),
        (word(Key::Capabilities, "CHOWN"), true),
        (word(Key::Capabilities, "SYS_ADMIN"), false),
        (word(Key::Registries, "docker.io"), true),
        (word(Key::Registries, "evil.test"), false),
    ] {
        assert_eq!(allows(&policy, &demand), expected, "{demand:?}");
    }
    let alone = parse("x", "base = \"strict\"\ncapabilities = [\"SYS_PTRACE\"]").unwrap();
    assert!(!allows(&alone, &word(Key::Capabilities, "CHOWN")));
}

/// Whoever writes what a refusal names into the policy is not refused that any more; for every rule there is.
#[test]
fn a_refusal_names_rule_and_value_and_what_would_allow_it() {
    let word = |word: &str| Value::Word(word.to_owned());
    let path = |path: &str, read_only| Value::Path { path: path.to_owned(), read_only };
    let limit = |highest| Value::Limit { name: "nofile".to_owned(), highest };
    let table = [
        (Key::Privileged, Value::Flag, "true"),
        (Key::ExecPrivileged, Value::Flag, "true"),
        (Key::Capabilities, word("SYS_ADMIN"), "SYS_ADMIN"),
        (Key::Devices, path("/dev/fuse", false), "/dev/fuse"),
        (Key::Devices, path("/dev/sr0", true), "/dev/sr0:ro"),
        (Key::DeviceRules, word("c 10:229 rwm"), "c 10:229 rwm"),
        (Key::DeviceRequests, word("gpu,compute"), "gpu,compute"),
        (Key::Namespaces, word("pid"), "pid"),
        (Key::HostNetwork, Value::Flag, "true"),
        (Key::BuildHostNetwork, Value::Flag, "true"),
        (Key::SecurityOpt, word("seccomp=unconfined"), "seccomp=unconfined"),
        (Key::SystemPaths, path("/proc/kcore", false), "/proc/kcore"),
        (Key::Binds, path("/", false), "/"),
        (Key::Binds, path("/etc", true), "/etc:ro"),
        (Key::Propagation, word("rshared"), "rshared"),
        (Key::VolumeMounts, word("bind"), "bind"),
        (Key::Sysctls, word("kernel.domainname"), "kernel.domainname"),
        (Key::Runtimes, word("kata"), "kata"),
        (Key::Annotations, word("run.oci.handler"), "run.oci.handler"),
        (Key::Ulimits, limit(Some(1025)), "nofile=1025"),
        (Key::Ulimits, limit(None), "nofile"),
        (Key::OomScoreAdj, Value::Number(-500), "-500"),
        (Key::OomKillDisable, Value::Flag, "true"),
        (Key::CgroupParent, word("/other"), "/other"),
        (Key::Update, word("memory"), "memory"),
        (Key::Publish, Value::Ports { address: None, ports: None }, "*:*"),
        (Key::Publish, Value::Ports { address: "::1".parse().ok(), ports: Some((80, 80)) }, "::1:80"),
        (Key::Publish, Value::Ports { address: "127.0.0.1".parse().ok(), ports: Some((1, 9)) }, "127.0.0.1:1-9"),
        (Key::LogDrivers, word("local"), "local"),
        (Key::NetworkOptions, word("com.docker.network.bridge.name"), "com.docker.network.bridge.name"),
        (Key::Registries, word("ghcr.io"), "ghcr.io"),
        (Key::Pull, word("docker.io/library/alpine:3"), "docker.io/library/alpine:3"),
        (Key::Push, word("ghcr.io/me/x:1"), "ghcr.io/me/x:1"),
        (Key::Load, Value::Flag, "true"),
        (Key::Calls, word("ImagePrune"), "ImagePrune"),
    ];
    // These two say where something is, and refuse nothing.
    for key in Key::ALL.iter().filter(|key| !matches!(key, Key::Mirrors | Key::MachinePorts)) {
        assert!(table.iter().any(|(told, ..)| told == key), "how {key} is refused is not in the table");
    }
    let said = |text: &str, demand: &Demand| {
        let policy = parse("x", text).unwrap();
        assert!(!allows(&policy, demand), "{text}: {demand:?}");
        refusal(&policy, demand).message().to_owned()
    };
    for (key, value, shown) in table {
        let demand = Demand { key, value };
        let (allowed_by, allowing) = match key.entry() {
            Entry::None => (format!("{key} = true"), format!("{key} = true")),
            _ => (format!("{key} with the entry \"{shown}\""), format!("{key} = [\"{shown}\"]")),
        };
        let refused =
            |allowed_by: &str| format!("refused by the policy x, rule {key}: {shown}; {allowed_by} would allow it");
        assert_eq!(said(&format!("{key} = false"), &demand), refused(&allowed_by));
        assert!(allows(&parse("x", &allowing).unwrap(), &demand), "{allowing}");
        if key.entry() != Entry::None {
            // An entry more would not help against one that takes away.
            let list = [shown.to_owned(), format!("!{shown}")];
            let text = format!("{key} = {list:?}");
            assert_eq!(said(&text, &demand), refused(&format!("{key} without the entry \"!{shown}\"")));
        }
    }
}

/// Whoever changes a list as a refusal says is not refused that any more.
#[test]
fn a_refusal_names_all_entries_that_are_to_come_and_to_go() {
    let demand = Demand { key: Key::Pull, value: Value::Word("evil/x".to_owned()) };
    for (list, change) in [
        (&["*", "!evil/*"][..], r#"without the entry "!evil/*""#),
        (&["docker.io/library/*", "!evil/*"], r#"with the entry "evil/x" and without the entry "!evil/*""#),
        (&["*", "!evil/*", "!no/*", "!*x"], r#"without the entry "!evil/*" and without the entry "!*x""#),
        (&["!evil/*"], r#"with the entry "evil/x" and without the entry "!evil/*""#),
        (&[], r#"with the entry "evil/x""#),
    ] {
        let policy = |list: &[&str]| parse("x", &format!("pull = {list:?}")).unwrap();
        let told = refusal(&policy(list), &demand).message().to_owned();
        assert_eq!(told, format!("refused by the policy x, rule pull: evil/x; pull {change} would allow it"));
        let mut changed = list.to_vec();
        for step in change.split(" and ") {
            let (word, entry) = step.split_once(" the entry ").unwrap();
            let entry = entry.trim_matches('"');
            if word == "with" { changed.push(entry) } else { changed.retain(|other| *other != entry) }
        }
        assert!(!allows(&policy(list), &demand) && allows(&policy(&changed), &demand), "{list:?}: {changed:?}");
    }
}

#[test]
fn devices_of_drivers_are_judged_by_their_driver_or_what_they_can() {
    let policy = parse("x", "device-requests = [\"nvidia\", \"gpu,*\"]").unwrap();
    for (request, allowed) in [
        (serde_json::json!({"Driver": "nvidia", "Count": -1}), true),
        (serde_json::json!({"Count": -1, "Capabilities": [["gpu", "compute"]]}), true),
        (serde_json::json!({"Driver": "cdi", "DeviceIDs": ["vendor.test/device=all"]}), false),
        (serde_json::json!({"Driver": "cdi", "Capabilities": [["gpu", "compute"]]}), false),
        (serde_json::json!({"Count": -1}), false),
    ] {
        let steps: HostConfig = serde_json::from_value(serde_json::json!({"DeviceRequests": [request]})).unwrap();
        assert_eq!(check(&policy, Asked::Build(&steps)).is_ok(), allowed, "{request}");
        assert!(check(&built_in(BuiltIn::Ci), Asked::Build(&steps)).is_err());
        check(&trusted(), Asked::Build(&steps)).unwrap();
    }
}

#[test]
fn what_an_update_makes_wider_is_named_and_what_it_narrows_passes() {
    let limits = |json: &str| serde_json::from_str::<HostConfig>(json).unwrap();
    let before = limits(
        r#"{"Memory": 100, "MemorySwap": 200, "NanoCpus": 2, "CpuShares": 512, "CpuRealtimeRuntime": 5,
            "CpusetCpus": "0", "CpusetMems": "0", "BlkioWeight": 100, "PidsLimit": 10}"#,
    );
    let ci = built_in(BuiltIn::Ci);
    for (field, wider, narrower, word) in [
        ("Memory", "101", "99", "memory"),
        ("MemorySwap", "-1", "150", "memory-swap"),
        ("NanoCpus", "3", "1", "cpus"),
        ("CpuShares", "513", "2", "cpu-shares"),
        ("CpuRealtimeRuntime", "6", "4", "cpu-realtime"),
        ("CpusetCpus", "\"0-1\"", "\"0\"", "cpuset"),
        ("CpusetMems", "\"1\"", "\"0\"", "cpuset"),
        ("BlkioWeight", "101", "99", "blkio-weight"),
        ("PidsLimit", "0", "9", "pids"),
    ] {
        let with = |value: &str| {
            let mut after = serde_json::to_value(&before).unwrap();
            after[field] = serde_json::from_str(value).unwrap();
            serde_json::from_value::<HostConfig>(after).unwrap()
        };
        let judged = |value: &str| refusals(&ci, Asked::Update { before: &before, after: &with(value) });
        assert_eq!(judged(wider).len(), 1, "{field}");
        assert!(judged(wider)[0].message().contains(&format!("rule update: {word}; ")), "{:?}", judged(wider));
        assert!(judged(narrower).is_empty(), "{field}: {:?}", judged(narrower));
    }
    let (unlimited, limited) = (HostConfig::default(), limits(r#"{"Memory": 100, "NanoCpus": 2, "PidsLimit": 10}"#));
    assert!(refusals(&ci, Asked::Update { before: &unlimited, after: &limited }).is_empty(), "no limit is lifted");
}

/// Where a job's port answers on the machine, the rule says: nowhere, unless a policy was written for it.
#[test]
fn ports_of_jobs_answer_on_the_machine_where_the_rule_says_so() {
    let at = |rule: &str, host_ip: &str, port: u16| {
        let policy = parse("x", &format!("base = \"ci\"\n{rule}")).unwrap();
        machine_address(&policy, host_ip.parse().ok(), Some((port, port))).map(|address| address.to_string())
    };
    for built_in in ["trusted", "ci", "strict"] {
        let policy = parse("x", &format!("base = \"{built_in}\"")).unwrap();
        assert_eq!(machine_address(&policy, None, Some((80, 80))), None, "{built_in}");
    }
    let of_loopback = "machine-ports = [\"127.0.0.1:8000-8999\", \"[::1]:*\"]";
    for (rule, host_ip, port, expected) in [
        ("machine-ports = true", "", 80, Some("0.0.0.0")),
        ("machine-ports = true", "::", 80, Some("::")),
        ("machine-ports = true", "172.17.0.1", 80, None),
        (of_loopback, "", 8080, Some("127.0.0.1")),
        (of_loopback, "0.0.0.0", 8080, Some("127.0.0.1")),
        (of_loopback, "127.0.0.1", 8080, Some("127.0.0.1")),
        (of_loopback, "", 80, None),
        (of_loopback, "::", 80, Some("::1")),
        ("machine-ports = [\"*:80\", \"!*:80\"]", "", 80, None),
    ] {
        assert_eq!(at(rule, host_ip, port).as_deref(), expected, "{rule} {host_ip} {port}");
    }
}

/// A mirror is no danger, since only who may write policies names one: the rule says which there are.
#[test]
fn mirrors_are_the_daemons_or_those_that_are_listed() {
    let daemons = ["https://machine.test".to_owned()];
    let mirrors = |text: &str| parse("x", text).map(|policy| policy.mirrors(&daemons));
    assert_eq!(mirrors("").unwrap(), daemons);
    assert_eq!(mirrors("mirrors = true").unwrap(), daemons);
    assert!(mirrors("mirrors = false").unwrap().is_empty());
    let listed = "mirrors = [\"http://10.0.0.5:5000\", \"https://m.test/\", \"https://[fd00::1]:5\"]";
    assert_eq!(mirrors(listed).unwrap().len(), 3);
    for wrong in ["m.test", "...", "!https://m.test", "https://m.test/a", "https://m.test?a", "https://", "https://u@m"]
    {
        let error = mirrors(&format!("mirrors = [\"{wrong}\"]")).unwrap_err();
        assert!(error.message().contains("mirrors: "), "{}", error.message());
    }
}

#[test]
fn what_is_shown_is_what_is_read() {
    for which in BuiltIn::ALL {
        let policy = built_in(which);
        assert_eq!(parse(&policy.name, &to_toml(&policy)).unwrap(), policy);
        assert_eq!(parse(&policy.name, &format!("base = \"{}\"", policy.name)).unwrap(), policy);
    }
}

#[test]
fn what_is_stored_stays_when_rules_come() {
    let policy = parse("x", "base = \"trusted\"\nprivileged = false").unwrap();
    let mut stored: Policy = serde_json::from_str(&serde_json::to_string(&policy).unwrap()).unwrap();
    assert_eq!(stored, policy);
    stored.rules.remove(&Key::Binds);
    let bind = Demand { key: Key::Binds, value: Value::Path { path: "/".to_owned(), read_only: true } };
    assert!(!allows(&stored, &bind), "what a policy has no rule for, it does not allow");
    assert_eq!(completed(stored), policy);
}

/// `docs/policy.md` tells every rule, and its examples are policies.
#[test]
fn the_documents_examples_are_policies() {
    let text = include_str!("../../docs/policy.md");
    let examples: Vec<&str> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        parse("example", example).unwrap();
    }
    for key in Key::ALL {
        assert!(text.contains(&format!("\n| `{key}` |")), "{key} is not told");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let good: [&[u8]; 2] = [
        b"base = \"ci\"\nprivileged = false\nbinds = [\"/srv:ro\"]\n[ulimits]\nnofile = 1024\n",
        b"base = \"strict\"\nregistries = [\"ghcr.io\", \"*.test\"]\npublish = [\"127.0.0.1:8000-9000\"]\n",
    ];
    crate::model::fuzz::each(&good, |input| drop(parse("x", &String::from_utf8_lossy(input))));
}

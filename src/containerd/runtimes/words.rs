//! crun's refusals in runc's words: clients search in them, and docker CLI takes its exit code (126, 127) from them.

use std::path::Path;

use crate::model::Error;

/// Where an OCI runtime's own words begin in containerd's text, and what runc puts in front of the reason.
const LEADS: [(&str, &str); 2] = [
    ("OCI runtime create failed: ", "runc create failed: unable to start container process: "),
    ("OCI runtime exec failed: ", "exec failed: unable to start container process: "),
];

/// The error with crun's words as runc's; of any other runtime it stays as it is. `program` is what was to run:
/// crun does not always name it.
pub(in crate::containerd) fn as_of_runc(error: Error, program: &str) -> Error {
    match reworded(error.message(), program) {
        Some(text) => Error::new(error.kind(), text),
        None => error,
    }
}

/// What containerd says after the name of an OCI runtime that failed.
const FAILED: &str = " did not terminate ";

/// The text with a runtime's path as dockerd names it: we name runtimes to containerd by their paths, dockerd its `runc` by the name.
pub(in crate::containerd) fn without_path(text: &str) -> String {
    let Some(end) = text.find(FAILED) else { return text.to_owned() };
    let start = text[..end].rfind(char::is_whitespace).map_or(0, |space| space + 1);
    match text[start..end].rsplit_once('/') {
        None => text.to_owned(),
        Some((_, "crun")) => format!("{}runc{}", &text[..start], &text[end..]),
        Some((_, name)) => format!("{}{name}{}", &text[..start], &text[end..]),
    }
}

fn reworded(text: &str, program: &str) -> Option<String> {
    let (start, lead) = LEADS.iter().find_map(|(start, lead)| Some((text.find(start)? + start.len(), lead)))?;
    let (what, errno) = text[start..].rsplit_once(": ")?;
    let errno = as_go_writes(errno)?;
    Some(format!("{}{lead}{}", &text[..start], reason(what, &errno, program)))
}

/// C's text of an error number as Go has it: the same, without the capital at its beginning. `None` if it is none.
fn as_go_writes(errno: &str) -> Option<String> {
    let mut letters = errno.chars();
    let first = letters.next().filter(char::is_ascii_uppercase)?;
    let rest = letters.as_str();
    let is_plain = rest.chars().all(|c| c.is_ascii_lowercase() || matches!(c, ' ' | '-'));
    is_plain.then(|| format!("{}{rest}", first.to_ascii_lowercase()))
}

fn reason(what: &str, errno: &str, program: &str) -> String {
    if is_of_program(what, program) {
        return match errno {
            _ if program.is_empty() => format!("exec: {program:?}: executable file not found in $PATH"),
            // Of a name with a slash runc has asked the file system.
            "no such file or directory" if !program.contains('/') => {
                format!("exec: {program:?}: executable file not found in $PATH")
            }
            // crun says the former of a folder.
            "operation not permitted" | "permission denied" => format!("exec: {program:?}: permission denied"),
            _ => format!("exec: {program:?}: stat {program}: {errno}"),
        };
    }
    if let Some(folder) = quoted(what, &["chdir `", "chdir to `"]) {
        return format!("chdir to cwd ({folder:?}) set in config.json failed: {errno}");
    }
    let in_init = "error during container init";
    match quoted(what, &["mount `"]).zip(what.split('`').nth(3)) {
        Some((source, target)) => {
            let target = format!("/{}", target.trim_start_matches('/'));
            format!("{in_init}: error mounting {source:?} to rootfs at {target:?}: mount {source}:{target}: {errno}")
        }
        None => format!("{in_init}: {}: {errno}", what.replace('`', "")),
    }
}

/// Whether crun speaks of what was to run. It may have made a path of the name.
fn is_of_program(what: &str, program: &str) -> bool {
    let is_program = |path: &str| {
        path == program || program.contains('/') && Path::new(path).ends_with(program.trim_start_matches("./"))
    };
    what == "open executable"
        || quoted(what, &["executable file `", "cannot find `", "the path `"]).is_some()
        || quoted(what, &["open `", "cannot open `"]).is_some_and(is_program)
}

fn quoted<'a>(what: &'a str, starts: &[&str]) -> Option<&'a str> {
    starts.iter().find_map(|start| what.strip_prefix(start))?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXEC: &str = r#"OCI runtime exec failed: exec failed: unable to start container process: chdir to cwd ("/nosuch") set in config.json failed: no such file or directory"#;
    const CREATE: &str = "failed to create shim task: OCI runtime create failed: ";

    fn created(words: &str, program: &str) -> String {
        let error = as_of_runc(Error::system(format!("{CREATE}{words}")), program);
        let lead = format!("{CREATE}runc create failed: unable to start container process: ");
        error.message().strip_prefix(&lead).unwrap_or_else(|| panic!("{}", error.message())).to_owned()
    }

    #[test]
    fn a_runtime_that_fails_is_named_without_its_path() {
        let said =
            |runtime: &str| without_path(&format!("{runtime} did not terminate successfully: exit status 1: a /b c"));
        let told = "runc did not terminate successfully: exit status 1: a /b c";
        for runtime in ["runc", "/usr/sbin/runc", "/opt/a b/runc", "/usr/bin/crun"] {
            assert!(said(runtime).ends_with(told), "{runtime}: {}", said(runtime));
        }
        assert_eq!(said("updating: /usr/sbin/runc"), format!("updating: {told}"));
        assert_eq!(said("/usr/bin/runsc"), told.replace("runc", "runsc"));
        assert_eq!(without_path("exec: /bin/x: not found"), "exec: /bin/x: not found");
    }

    /// Both sides as crun 1.8 and 1.21, and runc 1.1, say it of the same request.
    #[test]
    fn a_program_that_cannot_run_is_told_as_runc_tells_it() {
        let missing = |program: &str| {
            created(&format!("executable file `{program}` not found in $PATH: No such file or directory"), program)
        };
        assert_eq!(missing("nope"), r#"exec: "nope": executable file not found in $PATH"#);
        assert_eq!(missing("/nope"), r#"exec: "/nope": stat /nope: no such file or directory"#);
        let unusable = |errno: &str, program: &str| created(&format!("open executable: {errno}"), program);
        assert_eq!(unusable("Operation not permitted", "/etc"), r#"exec: "/etc": permission denied"#);
        assert_eq!(unusable("Permission denied", "/etc/passwd"), r#"exec: "/etc/passwd": permission denied"#);
        assert_eq!(unusable("Not a directory", "/f/x"), r#"exec: "/f/x": stat /f/x: not a directory"#);
        assert_eq!(unusable("Operation not permitted", ""), r#"exec: "": executable file not found in $PATH"#);
        // As newer crun has it.
        assert_eq!(created("executable file `/nope` not found: No such file or directory", "/nope"), missing("/nope"));
        let folder = "the path `/etc` is not a regular file: Operation not permitted";
        assert_eq!(created(folder, "/etc"), r#"exec: "/etc": permission denied"#);
        let file = "the path `/x/run` exists but it is not executable: Operation not permitted";
        assert_eq!(created(file, "./run"), r#"exec: "./run": permission denied"#);
        assert_eq!(
            created("cannot open `/f/x`: Not a directory", "/f/x"),
            r#"exec: "/f/x": stat /f/x: not a directory"#
        );
        let empty = "cannot find `` in $PATH: No such file or directory";
        assert_eq!(created(empty, ""), r#"exec: "": executable file not found in $PATH"#);
    }

    #[test]
    fn the_rest_is_told_as_of_the_init() {
        assert_eq!(
            created("mount `/opt` to `etc/passwd`: Not a directory", "true"),
            r#"error during container init: error mounting "/opt" to rootfs at "/etc/passwd": mount /opt:/etc/passwd: not a directory"#
        );
        assert_eq!(
            created("open `/proc/sys/net/nosuch`: No such file or directory", "true"),
            "error during container init: open /proc/sys/net/nosuch: no such file or directory"
        );
    }

    #[test]
    fn an_exec_has_a_lead_of_its_own() {
        for chdir in ["chdir", "chdir to"] {
            let error = Error::system(format!("OCI runtime exec failed: {chdir} `/nosuch`: No such file or directory"));
            assert_eq!(as_of_runc(error, "true").message(), EXEC);
        }
    }

    #[test]
    fn words_of_other_runtimes_stay() {
        for text in [
            "OCI runtime create failed: runc create failed: unable to start container process: exec: \"x\": permission denied",
            "OCI runtime create failed: creating container: cannot create sandbox",
            "No such container: x",
        ] {
            assert_eq!(as_of_runc(Error::system(text), "x").message(), text);
        }
    }
}

//! Who a process runs as: `Config.User` and `GroupAdd` looked up in the container's own passwd and group files.
//!
//! Pure: the caller reads `/etc/passwd` and `/etc/group` within the container's root (empty if they are not there).

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use indexmap::IndexSet;

use crate::model::{Error, Result};

/// Largest id that Docker takes.
const MAX_ID: u32 = i32::MAX as u32;

/// Groups that the kernel gives to a process.
const MAX_GROUPS: usize = 65_536;

/// A user as the kernel wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups, the primary one first.
    pub additional_gids: Vec<u32>,
}

/// The two files' contents.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserFiles<'a> {
    /// `/etc/passwd`.
    pub passwd: &'a [u8],
    /// `/etc/group`.
    pub group: &'a [u8],
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
}

/// Looks up `spec` (empty for root, `user`, `uid`, `user:group` …) and `group_add` (names or ids).
///
/// Errors are 400 in dockerd's words: `unable to find user X: no matching entries in passwd file`. A container may have written the files: of
/// their lines nothing is kept but what was asked for.
pub fn resolve(spec: &str, group_add: &[String], files: UserFiles<'_>) -> Result<ResolvedUser> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    let named: HashSet<&str> = group_add.iter().map(String::as_str).chain([group]).collect();
    let groups = find_groups(&named, files.group);
    let entry = find_user(user, files.passwd);
    let mut resolved = match &entry {
        Some(entry) => ResolvedUser { uid: entry.uid, gid: entry.gid, ..ResolvedUser::default() },
        None if user.is_empty() => ResolvedUser::default(),
        None => ResolvedUser { uid: unlisted_user(user)?, ..ResolvedUser::default() },
    };
    if !group.is_empty() {
        resolved.gid = find_group(group, &groups)?;
    }
    // runc takes a group once however often it is named, crun does not.
    let mut gids = IndexSet::from([resolved.gid]);
    if let (Some(entry), "") = (&entry, group) {
        gids.extend(groups_of(&entry.name, files.group));
    }
    for group in group_add {
        gids.insert(find_group(group, &groups)?);
    }
    if gids.len() > MAX_GROUPS {
        return Err(Error::invalid(format!("user {user} has more than {MAX_GROUPS} groups")));
    }
    resolved.additional_gids = gids.into_iter().collect();
    Ok(resolved)
}

/// The id that a line of `passwd` or `group` gives to a name.
pub fn id_of(name: &str, file: &[u8]) -> Option<u32> {
    lines(file).find_map(|line| {
        let (found, id, _) = named_id(&line)?;
        (found == name).then_some(id)
    })
}

fn find_user(user: &str, passwd: &[u8]) -> Option<PasswdEntry> {
    let id: Option<i64> = if user.is_empty() { Some(0) } else { user.parse().ok() };
    lines(passwd).find_map(|line| {
        let (name, uid, rest) = named_id(&line)?;
        let gid = rest.split(':').next()?.trim().parse().ok()?;
        let fits = id.map_or(name == user, |id| i64::from(uid) == id);
        fits.then(|| PasswdEntry { name: name.to_owned(), uid, gid })
    })
}

fn unlisted_user(user: &str) -> Result<u32> {
    match user.parse::<i64>() {
        Ok(id) => in_range(id),
        Err(_) => Err(Error::invalid(format!("unable to find user {user}: no matching entries in passwd file"))),
    }
}

/// The ids of the groups that have one of these names.
fn find_groups<'n>(names: &HashSet<&'n str>, file: &[u8]) -> HashMap<&'n str, u32> {
    let mut found = HashMap::new();
    for line in lines(file) {
        if let Some((name, gid, _)) = named_id(&line)
            && let Some(name) = names.get(name)
        {
            found.entry(*name).or_insert(gid);
        }
    }
    found
}

/// The groups that a user is a member of.
fn groups_of<'f>(user: &'f str, file: &'f [u8]) -> impl Iterator<Item = u32> + 'f {
    lines(file).filter_map(move |line| {
        let (_, gid, rest) = named_id(&line)?;
        let mut members = rest.split(':').next()?.split(',').map(str::trim);
        members.any(|member| !member.is_empty() && member == user).then_some(gid)
    })
}

fn find_group(group: &str, groups: &HashMap<&str, u32>) -> Result<u32> {
    match (group.parse::<i64>(), groups.get(group)) {
        (Ok(id), _) => in_range(id),
        (Err(_), Some(gid)) => Ok(*gid),
        (Err(_), None) => {
            Err(Error::invalid(format!("unable to find group {group}: no matching entries in group file")))
        }
    }
}

fn in_range(id: i64) -> Result<u32> {
    let fits = u32::try_from(id).ok().filter(|id| *id <= MAX_ID);
    fits.ok_or_else(|| Error::invalid(format!("uids and gids must be in range 0-{MAX_ID}")))
}

fn lines(file: &[u8]) -> impl Iterator<Item = Cow<'_, str>> {
    file.split(|byte| *byte == b'\n').map(String::from_utf8_lossy)
}

/// Name and id of a line, and what follows. Lines that have no numeric id are left out: dockerd reads them as root's, which nobody can mean.
fn named_id(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.trim().splitn(4, ':');
    let name = fields.next()?;
    let id = fields.nth(1)?.trim().parse().ok()?;
    Some((name, id, fields.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: UserFiles<'static> = UserFiles {
        passwd: b"root:x:0:0:root:/root:/bin/sh\n\nbroken:x:y:z\nworker:x:1001:1002:Worker:/home/worker:/bin/sh\n",
        group: b"root:x:0:\nworker:x:1002:\ncrew:x:1003:worker,other\nidle:x:1004:other\nwheel:x:10:root\n",
    };

    fn ids(spec: &str, group_add: &[&str]) -> (u32, u32, Vec<u32>) {
        let group_add: Vec<String> = group_add.iter().map(ToString::to_string).collect();
        let user = resolve(spec, &group_add, FILES).unwrap();
        (user.uid, user.gid, user.additional_gids)
    }

    fn error(spec: &str, group_add: &[&str]) -> String {
        let group_add: Vec<String> = group_add.iter().map(ToString::to_string).collect();
        resolve(spec, &group_add, FILES).unwrap_err().message().to_owned()
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        assert_eq!(ids("", &[]), (0, 0, vec![0, 10]));
        assert_eq!(ids("root", &[]), (0, 0, vec![0, 10]));
        assert_eq!(ids("1000", &[]), (1000, 0, vec![0]));
        assert_eq!(ids("1000:50", &[]), (1000, 50, vec![50]));
        assert_eq!(ids("worker", &[]), (1001, 1002, vec![1002, 1003]));
        assert_eq!(ids("1001", &[]), (1001, 1002, vec![1002, 1003]));
        assert_eq!(ids("worker:crew", &[]), (1001, 1003, vec![1003]));
        assert_eq!(ids("worker", &["crew", "777"]), (1001, 1002, vec![1002, 1003, 777]));
        assert_eq!(ids(":crew", &[]), (0, 1003, vec![1003]));
    }

    #[test]
    fn unknown_names_are_refused_in_dockers_words() {
        assert_eq!(error("broken", &[]), "unable to find user broken: no matching entries in passwd file");
        assert_eq!(error("root:nobody", &[]), "unable to find group nobody: no matching entries in group file");
        assert_eq!(error("", &["nobody"]), "unable to find group nobody: no matching entries in group file");
        assert_eq!(error("-1", &[]), "uids and gids must be in range 0-2147483647");
        assert_eq!(error("2147483648", &[]), "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn a_file_of_groups_costs_no_more_than_a_look_at_each_line() {
        let group: String = (0..300_000).map(|gid| format!("g{gid}:x:{gid}:worker\n")).collect();
        let error = resolve("worker", &[], UserFiles { group: group.as_bytes(), ..FILES }).unwrap_err();
        assert_eq!(error.message(), "user worker has more than 65536 groups");
        let names: Vec<String> = (0..50_000).map(|n| format!("g{n}")).collect();
        let members = format!("g7:x:7:{}\n{group}", "b,".repeat(1 << 20));
        let user = resolve("root", &names, UserFiles { group: members.as_bytes(), ..FILES }).unwrap();
        assert_eq!(user.additional_gids.len(), 50_000);
    }

    #[test]
    fn numbers_need_no_files() {
        let user = resolve("5:6", &[], UserFiles::default()).unwrap();
        assert_eq!(user, ResolvedUser { uid: 5, gid: 6, additional_gids: vec![6] });
        assert!(resolve("root", &[], UserFiles::default()).is_err());
    }
}

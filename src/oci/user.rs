//! Who a process runs as: `Config.User` and `GroupAdd` looked up in the container's own passwd and group files.
//!
//! Pure: the caller reads `/etc/passwd` and `/etc/group` within the container's root (empty if they are not there).

use crate::model::{Error, Result};

/// Largest id that Docker takes.
const MAX_ID: u32 = i32::MAX as u32;

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

struct GroupEntry {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Looks up `spec` (empty for root, `user`, `uid`, `user:group` …) and `group_add` (names or ids).
///
/// Errors are 400 in dockerd's words: `unable to find user X: no matching entries in passwd file`.
pub fn resolve(spec: &str, group_add: &[String], files: UserFiles<'_>) -> Result<ResolvedUser> {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    let groups = parse_group(files.group);
    let entry = find_user(user, files.passwd)?;
    let mut resolved = match &entry {
        Some(entry) => ResolvedUser { uid: entry.uid, gid: entry.gid, ..ResolvedUser::default() },
        None if user.is_empty() => ResolvedUser::default(),
        None => ResolvedUser { uid: unlisted_user(user)?, ..ResolvedUser::default() },
    };
    if !group.is_empty() {
        resolved.gid = find_group(group, &groups)?;
    }
    let mut gids = vec![resolved.gid];
    if let (Some(entry), "") = (&entry, group) {
        let supplementary = groups.iter().filter(|group| group.members.contains(&entry.name));
        gids.extend(supplementary.map(|group| group.gid));
    }
    for group in group_add {
        gids.push(find_group(group, &groups)?);
    }
    // runc takes a group once however often it is named, crun does not.
    for gid in gids {
        if !resolved.additional_gids.contains(&gid) {
            resolved.additional_gids.push(gid);
        }
    }
    Ok(resolved)
}

fn find_user(user: &str, passwd: &[u8]) -> Result<Option<PasswdEntry>> {
    let uid: Option<i64> = if user.is_empty() { Some(0) } else { user.parse().ok() };
    let mut entries = parse_passwd(passwd).into_iter();
    Ok(match uid {
        Some(uid) => entries.find(|entry| i64::from(entry.uid) == uid),
        None => entries.find(|entry| entry.name == user),
    })
}

fn unlisted_user(user: &str) -> Result<u32> {
    match user.parse::<i64>() {
        Ok(id) => in_range(id),
        Err(_) => Err(Error::invalid(format!("unable to find user {user}: no matching entries in passwd file"))),
    }
}

fn find_group(group: &str, groups: &[GroupEntry]) -> Result<u32> {
    let id = group.parse::<i64>();
    let found = groups.iter().find(|entry| match id {
        Ok(id) => i64::from(entry.gid) == id,
        Err(_) => entry.name == group,
    });
    match (found, id) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Ok(id)) => in_range(id),
        (None, Err(_)) => {
            Err(Error::invalid(format!("unable to find group {group}: no matching entries in group file")))
        }
    }
}

fn in_range(id: i64) -> Result<u32> {
    let fits = u32::try_from(id).ok().filter(|id| *id <= MAX_ID);
    fits.ok_or_else(|| Error::invalid(format!("uids and gids must be in range 0-{MAX_ID}")))
}

/// Lines that have no numeric ids are left out: dockerd reads them as root's, which nobody can mean.
fn parse_passwd(content: &[u8]) -> Vec<PasswdEntry> {
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.trim().parse().ok()?;
        let gid = fields.next()?.trim().parse().ok()?;
        Some(PasswdEntry { name, uid, gid })
    };
    String::from_utf8_lossy(content).lines().filter_map(|line| parse(line.trim())).collect()
}

fn parse_group(content: &[u8]) -> Vec<GroupEntry> {
    let parse = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let gid = fields.nth(1)?.trim().parse().ok()?;
        let members = fields.next().unwrap_or_default();
        let members = members.split(',').map(str::trim).filter(|member| !member.is_empty());
        Some(GroupEntry { name, gid, members: members.map(str::to_owned).collect() })
    };
    String::from_utf8_lossy(content).lines().filter_map(|line| parse(line.trim())).collect()
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
    fn numbers_need_no_files() {
        let user = resolve("5:6", &[], UserFiles::default()).unwrap();
        assert_eq!(user, ResolvedUser { uid: 5, gid: 6, additional_gids: vec![6] });
        assert!(resolve("root", &[], UserFiles::default()).is_err());
    }
}

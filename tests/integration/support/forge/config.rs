//! Gitea's configuration: everything in one folder, nothing fetched, nothing sent.

use std::path::Path;

use super::{PORT, place::ADDRESS};

/// `app.ini` for the program in `part`.
pub fn text(folder: &Path, part: &Path) -> String {
    let (folder, part) = (folder.display(), part.display());
    format!(
        "RUN_USER = root
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
WORK_PATH = {folder}/work

[server]
HTTP_ADDR = 0.0.0.0
HTTP_PORT = {PORT}
ROOT_URL = http://{ADDRESS}:{PORT}/
LOCAL_ROOT_URL = http://{ADDRESS}:{PORT}/
STATIC_ROOT_PATH = {part}/static
DISABLE_SSH = true
OFFLINE_MODE = true

[database]
DB_TYPE = sqlite3
SQLITE_JOURNAL_MODE = WAL

[indexer]
ISSUE_INDEXER_TYPE = db

[security]
INSTALL_LOCK = true
SECRET_KEY = of-a-test

[oauth2]
JWT_SECRET = bm90aGluZy1vZi10aGlzLWlzLWEtc2VjcmV0LWF0LWE

[actions]
ENABLED = true
DEFAULT_ACTIONS_URL = self

[webhook]
ALLOWED_HOST_LIST = *

[log]
MODE = console
LEVEL = info
"
    )
}

//! Whose a job is.

use super::*;
use crate::supervisor::{forge::tests::settings, settings::Kind};

#[tokio::test]
async fn equal_numbers_of_a_job_and_its_task_do_not_make_it_one_that_was_heard_of() {
    let folder = tempfile::tempdir().unwrap();
    let identities = Arc::new(Identities::open(folder.path()).unwrap());
    // Nobody listens, so what is asked of the server fails.
    let settings = settings(Kind::Forgejo, "http://127.0.0.1:1".to_owned());
    let forge = Act::new(&settings, Family::Forgejo, Some(identities)).unwrap();
    let job = |is_heard| ForgeJob {
        id: 1,
        run: Some(1),
        task: Some(1),
        is_heard,
        repository: "ci/tool".to_owned(),
        name: "build".to_owned(),
        url: String::new(),
    };
    forge.give_up(&job(false), &Secret::new("uuid\ntoken"), "it has ended").await.unwrap_err();
    forge.conclusion(&job(false)).await.unwrap_err();
    assert!(forge.conclusion(&job(true)).await.unwrap().is_some());
}

//! What a container did to its image's files.

/// One path that a container changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// In the container, with a slash in front.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It or something in it is another.
    Modified,
    /// The image has nothing there.
    Added,
    /// The image has something there.
    Deleted,
}

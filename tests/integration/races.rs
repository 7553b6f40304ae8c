//! What meets in time: verbs that come while another is under way, and jobs that change what is being looked at.

mod paths;
mod verbs;
mod volume_filling;

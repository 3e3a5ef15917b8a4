//! Tasks that get credentials and send them to their fleet source through a queue.

use crate::member::TokenRefusal;

/// Numbers the tasks of a fleet source.
#[derive(Default)]
pub struct Generations(u64);

/// The number of a task. A queued result of a cancelled task has an old number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// Members that wait for the result of a task. Dropping this ends their wait.
#[derive(Default)]
pub struct WaitingMembers(Vec<TokenRefusal>);

impl Generations {
    /// The number of the next task.
    pub fn next(&mut self) -> Generation {
        self.0 += 1;
        Generation(self.0)
    }
}

impl WaitingMembers {
    /// Adds a member.
    pub fn push(&mut self, refused: TokenRefusal) {
        self.0.retain(|refused| !refused.is_abandoned());
        self.0.push(refused);
    }
}

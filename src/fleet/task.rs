//! Tasks that look for credentials and report to their source by a queue.

use crate::member::TokenRefusal;

/// Numbers the tasks of a source.
#[derive(Default)]
pub struct Generations(u64);

/// Tells what a task reports from what one that was given up has left in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// Members that wait for what a task finds. They wait no more when this is dropped.
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
    /// One more.
    pub fn push(&mut self, refused: TokenRefusal) {
        self.0.retain(|refused| !refused.is_abandoned());
        self.0.push(refused);
    }
}

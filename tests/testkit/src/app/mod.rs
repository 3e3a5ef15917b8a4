//! The sample application of the FederatedHPA walkthrough: HTTP servers that count their requests, a Deployment that starts and
//! stops them in a member, the member's Prometheus, and the load.

mod deployment;
mod load;
mod replica;
mod scraper;

pub use deployment::{Deployment, DeploymentOptions, Endpoints};
pub use load::LoadGenerator;
pub use replica::Replica;

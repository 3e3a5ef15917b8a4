//! What must hold, test by test.

mod certificates;
mod commands;
mod connections;
mod faults;
mod kubectl;
mod load;
mod replicas;
mod restarts;
mod scaling;
mod tokens;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::stage::Stage;

/// One test on the stage; a fault that it leaves behind is ended afterwards.
pub struct Test {
    /// Its name, a sentence.
    pub name: &'static str,
    /// What it does.
    pub run: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// All tests in their order.
        pub const TESTS: &[Test] =
            &[$(Test { name: stringify!($name), run: |stage| $module::$name(stage).boxed_local() }),*];
    };
}

tests! {
    kubectl::the_tutorials_command_prints_the_pods_of_both_members,
    kubectl::kubectl_top_explain_get_and_api_resources_work,
    scaling::each_autoscaler_scales_from_one_to_ten_and_back,
    faults::a_members_api_server_freezes,
    faults::a_members_adapter_freezes,
    faults::a_members_prometheus_freezes,
    faults::a_members_adapter_is_killed,
    connections::an_api_server_that_closes_its_connections_loses_no_query,
    connections::a_member_behind_a_proxy_that_wants_a_password_is_asked_through_it,
    commands::check_and_query_see_both_members_and_what_breaks_in_one,
    tokens::a_token_expires_and_another_is_requested,
    restarts::the_control_planes_api_server_restarts,
    restarts::the_control_planes_etcd_restarts,
    certificates::the_serving_certificate_is_rotated,
    certificates::the_front_proxys_authority_changes,
    replicas::one_of_two_replicas_ends_and_no_query_fails,
    replicas::one_of_two_replicas_is_killed_and_the_other_takes_over,
}

//! The tests.

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

/// A test. The runner ends faults that the test leaves behind.
pub struct Test {
    /// The name.
    pub name: &'static str,
    /// The test function.
    pub run: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        /// All tests in order.
        pub const TESTS: &[Test] =
            &[$(Test { name: stringify!($name), run: |stage| $module::$name(stage).boxed_local() }),*];
    };
}

tests! {
    kubectl::tutorial_command_prints_the_pods_of_both_members,
    kubectl::kubectl_top_explain_get_and_api_resources_work,
    scaling::each_autoscaler_scales_from_one_to_ten_and_back,
    faults::member_api_server_freezes,
    faults::member_adapter_freezes,
    faults::member_prometheus_freezes,
    faults::member_adapter_is_killed,
    connections::no_query_is_lost_if_an_api_server_closes_connections,
    connections::member_behind_a_proxy_with_password_is_queried,
    commands::check_and_query_report_both_members_and_a_failure,
    tokens::expired_token_is_replaced,
    restarts::control_plane_api_server_restarts,
    restarts::control_plane_etcd_restarts,
    certificates::serving_certificate_is_rotated,
    certificates::front_proxy_ca_is_rotated,
    replicas::one_of_two_replicas_stops_and_no_query_fails,
    replicas::one_of_two_replicas_is_killed_and_the_other_takes_over,
}

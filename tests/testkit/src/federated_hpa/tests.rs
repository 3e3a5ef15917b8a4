//! The algorithm against numbers worked out by hand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn pod(name: &str) -> Pod {
    Pod { name: name.to_owned(), phase: Phase::Running, ready: true, deleting: false }
}

fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(|index| pod(&format!("pod-{index}"))).collect()
}

/// `count` pods that have `value` each.
fn values(count: usize, value: i64) -> Reading {
    Reading::Pods((0..count).map(|index| (format!("pod-{index}"), value)).collect())
}

fn pods_metric(average_value: i64) -> Metric {
    Metric::pods("http_requests", average_value)
}

fn object_metric(target: ObjectTarget) -> Metric {
    Metric::Object {
        resource: "services".to_owned(),
        object: "front".to_owned(),
        name: "hits".to_owned(),
        selector: String::new(),
        target,
    }
}

fn all(replicas: i32) -> Scale {
    Scale { spec: replicas, status: replicas }
}

/// What the metric alone asks for.
fn proposed(metric: Metric, current: i32, scale: Scale, pods: &[Pod], reading: Reading) -> i32 {
    let mut hpa = FederatedHpa::new(Spec::new(metric, 1..=100));
    let decision = hpa.decide(Instant::now(), current, scale, pods, &[Ok(reading)]);
    decision.expect("a reading was given").proposed.expect("replicas are within the limits")
}

/// What a FederatedHPA on one Pods metric with a target of 1 decides when a pod has `per_pod` thousandths.
fn step(hpa: &mut FederatedHpa, now: Instant, current: i32, per_pod: i64) -> i32 {
    let count = usize::try_from(current).expect("replicas are not negative");
    let reading = Ok(values(count, per_pod));
    hpa.decide(now, current, all(current), &pods(count), &[reading]).expect("a reading was given").desired
}

// calcPlainMetricReplicas

#[test]
fn the_average_of_the_pods_is_brought_to_the_target() {
    // 4 pods with 1.05 on average where 0.7 is wanted: 1.5 × 4.
    assert_eq!(proposed(pods_metric(700), 4, all(4), &pods(4), values(4, 1050)), 6);
    // 10 pods with 0.25 each: 0.357 × 10, rounded up.
    assert_eq!(proposed(pods_metric(700), 10, all(10), &pods(10), values(10, 250)), 4);
}

#[test]
fn nothing_changes_within_the_tolerance() {
    assert_eq!(proposed(pods_metric(700), 4, all(4), &pods(4), values(4, 769)), 4);
    assert_eq!(proposed(pods_metric(700), 4, all(4), &pods(4), values(4, 631)), 4);
    assert_eq!(proposed(pods_metric(700), 4, all(4), &pods(4), values(4, 777)), 5);
}

#[test]
fn the_result_is_scaled_by_the_share_of_the_replicas_that_was_read() {
    // One of two clusters: 5 of 10 pods, 1.4 each: 2 × 5 / 0.5.
    assert_eq!(proposed(pods_metric(700), 10, all(5), &pods(5), values(5, 1400)), 20);
    // On target nothing changes, although only half was read.
    assert_eq!(proposed(pods_metric(700), 10, all(5), &pods(5), values(5, 700)), 10);
}

#[test]
fn a_value_without_its_pod_stays_in_the_average_and_out_of_the_count() {
    // An unreachable cluster's 5 values of 0.7 beside 5 of 1.4: 1.05 on average, 1.5 × 5 / 0.5.
    let mut reading: BTreeMap<String, i64> = (0..5).map(|index| (format!("pod-{index}"), 1400)).collect();
    reading.extend((0..5).map(|index| (format!("gone-{index}"), 700)));
    assert_eq!(proposed(pods_metric(700), 10, all(5), &pods(5), Reading::Pods(reading)), 15);
}

#[test]
fn a_pod_without_a_value_counts_as_idle_when_scaling_up() {
    // 3 values of 2 where 1 is wanted, one pod without: (6 + 0) / 4 = 1.5, × 4.
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods(4), values(3, 2000)), 6);
    // 1.2 each, one without: 0.9 on average would scale down: nothing changes.
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods(4), values(3, 1200)), 4);
}

#[test]
fn a_pod_without_a_value_counts_as_on_target_when_scaling_down() {
    // 3 values of 0.2, one pod without: (0.6 + 1) / 4 = 0.4, × 4, rounded up.
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods(4), values(3, 200)), 2);
}

#[test]
fn a_pending_pod_counts_as_idle_when_scaling_up_and_not_at_all_otherwise() {
    let mut pods = pods(4);
    pods[3].phase = Phase::Pending;
    // Up: (2 + 2 + 2 + 0) / 4 = 1.5, × 4.
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods, values(4, 2000)), 6);
    // Down: 0.5 × 3 ready pods, rounded up.
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods, values(4, 500)), 2);
}

#[test]
fn failed_and_deleted_pods_do_not_count() {
    let mut pods = pods(4);
    pods[2].phase = Phase::Failed;
    pods[3].deleting = true;
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods, values(4, 2000)), 4);
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods, values(4, 3000)), 6);
}

#[test]
fn the_proposal_never_turns_against_the_metric() {
    // A quarter of the replicas was read, one of its 3 pods has no value: (0.5 + 0.5 + 1) / 3 = 0.666, and
    // 0.666 × 3 / 0.25 = 8 would scale up although usage is below the target.
    let scale = Scale { spec: 1, status: 3 };
    assert_eq!(proposed(pods_metric(1000), 4, scale, &pods(3), values(2, 500)), 4);
}

#[test]
fn a_pods_metric_without_pods_or_without_values_of_them_is_an_error() {
    let mut hpa = FederatedHpa::new(Spec::new(pods_metric(700), 1..=10));
    let error = hpa.decide(Instant::now(), 2, all(2), &[], &[Ok(values(2, 700))]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid metrics (1 invalid out of 1), first error is: no pods returned by selector while calculating \
         replica count"
    );
    let mut pending = pods(2);
    pending.iter_mut().for_each(|pod| pod.phase = Phase::Pending);
    let error = hpa.decide(Instant::now(), 2, all(2), &pending, &[Ok(values(2, 700))]).unwrap_err();
    assert!(error.to_string().ends_with("did not receive metrics for any ready pods"), "{error}");
}

// GetObjectMetricReplicas and getUsageRatioReplicaCount

#[test]
fn an_objects_value_multiplies_the_ready_pods() {
    let metric = || object_metric(ObjectTarget::Value(10_000));
    // 15 where 10 are wanted: 1.5 × 4.
    assert_eq!(proposed(metric(), 4, all(4), &pods(4), Reading::Object(15_000)), 6);
    let mut one_unready = pods(4);
    one_unready[0].ready = false;
    assert_eq!(proposed(metric(), 4, all(4), &one_unready, Reading::Object(15_000)), 5);
    assert_eq!(proposed(metric(), 4, all(4), &pods(4), Reading::Object(10_900)), 4);
}

#[test]
fn an_objects_value_scales_down_by_the_share_of_an_unreachable_cluster() {
    // Half of the value is missing: 0.5 × 5 / 0.5. This is the one case that no failure policy but `fail` mends.
    let metric = object_metric(ObjectTarget::Value(10_000));
    assert_eq!(proposed(metric, 10, all(5), &pods(5), Reading::Object(5_000)), 5);
}

// GetObjectPerPodMetricReplicas

#[test]
fn an_objects_average_divides_its_value_by_the_target() {
    let metric = || object_metric(ObjectTarget::AverageValue(1_000));
    assert_eq!(proposed(metric(), 4, all(4), &pods(4), Reading::Object(6_000)), 6);
    assert_eq!(proposed(metric(), 4, all(4), &pods(4), Reading::Object(4_300)), 4);
}

#[test]
fn a_stand_in_for_an_unreachable_cluster_would_be_scaled_up_twice() {
    let metric = || object_metric(ObjectTarget::AverageValue(1_000));
    // Left out, 10 replicas stay: usage 5 on 5 replicas is on target, 5 / 0.5.
    assert_eq!(proposed(metric(), 10, all(5), &pods(5), Reading::Object(5_000)), 10);
    // Stood in for, they would be 40: 10 / 1 / 0.5 = 20, / 0.5.
    assert_eq!(proposed(metric(), 10, all(5), &pods(5), Reading::Object(10_000)), 40);
}

// computeReplicasForMetrics

fn two_metrics() -> FederatedHpa {
    let mut spec = Spec::new(pods_metric(1000), 1..=100);
    spec.metrics.push(object_metric(ObjectTarget::Value(10_000)));
    FederatedHpa::new(spec)
}

#[test]
fn the_highest_proposal_counts() {
    let readings = [Ok(values(4, 1500)), Ok(Reading::Object(17_500))];
    let decision = two_metrics().decide(Instant::now(), 4, all(4), &pods(4), &readings).unwrap();
    assert_eq!((decision.proposed, decision.usage), (Some(7), Some(17_500)));
}

#[test]
fn an_ill_metric_forbids_scaling_down_and_not_up() {
    let ill = || Err(MetricsError::Empty);
    let up =
        two_metrics().decide(Instant::now(), 4, all(4), &pods(4), &[Ok(values(4, 1500)), ill()]).unwrap();
    assert_eq!(up.desired, 6);
    let said =
        "invalid metrics (1 invalid out of 2), first error is: no metrics returned from custom metrics API";
    assert_eq!(up.ill.as_deref(), Some(said));
    let down = two_metrics().decide(Instant::now(), 4, all(4), &pods(4), &[Ok(values(4, 500)), ill()]);
    assert_eq!(down.unwrap_err().to_string(), said);
}

// reconcileAutoscaler

#[test]
fn nothing_is_decided_when_no_cluster_can_be_read() {
    let mut hpa = FederatedHpa::new(Spec::tutorial());
    let decision = hpa.decide(Instant::now(), 10, Scale::default(), &[], &[Ok(values(5, 0))]);
    assert_eq!(decision, Err(DecisionError::NoReplicas));
}

#[test]
fn replicas_outside_the_limits_are_brought_back_without_a_metric() {
    let mut hpa = FederatedHpa::new(Spec::new(pods_metric(700), 3..=10));
    let desired = |hpa: &mut FederatedHpa, current| {
        hpa.decide(Instant::now(), current, all(current), &[], &[]).expect("limits need no metric").desired
    };
    assert_eq!(desired(&mut hpa, 14), 10);
    assert_eq!(desired(&mut hpa, 2), 3);
}

// normalizeDesiredReplicas (no behavior)

#[test]
fn scaling_up_at_most_doubles_or_goes_to_four() {
    let mut hpa = FederatedHpa::new(Spec::new(pods_metric(1000), 1..=100));
    let start = Instant::now();
    assert_eq!(step(&mut hpa, start, 1, 50_000), 4);
    assert_eq!(step(&mut hpa, start + SECOND, 4, 50_000), 8);
    assert_eq!(step(&mut hpa, start + 2 * SECOND, 8, 50_000), 16);
}

#[test]
fn scaling_down_waits_until_the_highest_recommendation_is_old() {
    let mut hpa = FederatedHpa::new(Spec::new(pods_metric(1000), 1..=100));
    let start = Instant::now();
    assert_eq!(step(&mut hpa, start, 8, 1000), 8);
    assert_eq!(step(&mut hpa, start + 299 * SECOND, 8, 250), 8);
    assert_eq!(step(&mut hpa, start + 300 * SECOND, 8, 250), 8);
    assert_eq!(step(&mut hpa, start + 301 * SECOND, 8, 250), 2);
}

#[test]
fn the_limits_of_the_spec_hold() {
    let start = Instant::now();
    let mut hpa = FederatedHpa::new(Spec::new(pods_metric(1000), 2..=10));
    assert_eq!(step(&mut hpa, start, 6, 9000), 10);
    let mut hpa = FederatedHpa::new(Spec {
        downscale_stabilization: Duration::ZERO,
        ..Spec::new(pods_metric(1000), 2..=10)
    });
    assert_eq!(step(&mut hpa, start, 6, 0), 6, "the first recommendation is as old as the window");
    assert_eq!(step(&mut hpa, start + SECOND, 6, 0), 2);
}

// normalizeDesiredReplicasWithBehaviors

#[test]
fn the_tutorials_app_goes_from_one_to_ten_in_two_steps_and_back_in_one() {
    let mut hpa = FederatedHpa::new(Spec::tutorial());
    let start = Instant::now();
    let mut replicas = 1;
    let mut changes = Vec::new();
    for second in 0..60 {
        // Twenty requests a second from 0 to 40, none after.
        let per_pod = if second < 40 { 20_000 / i64::from(replicas) } else { 0 };
        let desired = step(&mut hpa, start + second * SECOND, replicas, per_pod);
        if desired != replicas {
            changes.push((second, desired));
            replicas = desired;
        }
    }
    // The recommendation of 1 counts for 10 s; 4 pods in 15 s; then the double; 10 s of zeros.
    assert_eq!(changes, [(10, 5), (25, 10), (49, 1)]);
}

fn rules(select: SelectPolicy, policies: Vec<Policy>) -> ScalingRules {
    ScalingRules { stabilization: Duration::ZERO, select, policies }
}

fn with_behavior(scale_up: ScalingRules, scale_down: ScalingRules) -> FederatedHpa {
    let behavior = Some(Behavior { scale_up, scale_down });
    FederatedHpa::new(Spec { behavior, ..Spec::new(pods_metric(1000), 1..=1000) })
}

fn policies() -> Vec<Policy> {
    let policy = |value, unit| Policy { value, unit, period: 60 * SECOND };
    vec![policy(10, PolicyUnit::Pods), policy(25, PolicyUnit::Percent)]
}

#[test]
fn the_selected_policy_limits_the_change_within_its_period() {
    let start = Instant::now();
    for (select, up, down) in
        [(SelectPolicy::Max, 125, 75), (SelectPolicy::Min, 110, 90), (SelectPolicy::Disabled, 100, 100)]
    {
        let mut hpa = with_behavior(rules(select, policies()), rules(select, policies()));
        assert_eq!(step(&mut hpa, start, 100, 9000), up, "up, {select:?}");
        let mut hpa = with_behavior(rules(select, policies()), rules(select, policies()));
        assert_eq!(step(&mut hpa, start, 100, 100), down, "down, {select:?}");
    }
}

#[test]
fn a_policy_counts_what_changed_since_its_period_began() {
    let start = Instant::now();
    let mut hpa = with_behavior(rules(SelectPolicy::Max, policies()), rules(SelectPolicy::Max, policies()));
    assert_eq!(step(&mut hpa, start, 100, 9000), 125);
    // The period began with 100: 125 is all there may be.
    assert_eq!(step(&mut hpa, start + 30 * SECOND, 125, 9000), 125);
    // Down: from 100 by 25 % is 75.
    assert_eq!(step(&mut hpa, start + 31 * SECOND, 125, 100), 75);
    // After a minute the growth is forgotten and the shrinking is not: the period began with 125, × 1.25.
    assert_eq!(step(&mut hpa, start + 61 * SECOND, 75, 9000), 157);
}

#[test]
fn a_stabilization_window_takes_the_most_cautious_recommendation() {
    let window =
        |seconds| ScalingRules { stabilization: seconds * SECOND, ..rules(SelectPolicy::Max, wide()) };
    let mut hpa = with_behavior(window(10), window(20));
    let start = Instant::now();
    assert_eq!(step(&mut hpa, start, 10, 3000), 10, "10 was the first recommendation");
    assert_eq!(step(&mut hpa, start + 5 * SECOND, 10, 2000), 10);
    assert_eq!(step(&mut hpa, start + 10 * SECOND, 10, 4000), 20, "the lowest of 20 and 40");
    // 0.1 × 20 = 2 is held by 40 until that is 20 s old.
    assert_eq!(step(&mut hpa, start + 29 * SECOND, 20, 100), 20);
    assert_eq!(step(&mut hpa, start + 30 * SECOND, 20, 100), 2);
}

fn wide() -> Vec<Policy> {
    vec![Policy { value: 900, unit: PolicyUnit::Percent, period: SECOND }]
}

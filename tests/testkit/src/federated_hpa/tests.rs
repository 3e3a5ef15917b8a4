//! The algorithm, checked against numbers calculated by hand.

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

/// `count` pods with `value` each.
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

/// The proposal of the metric before limits.
fn proposed(metric: Metric, current: i32, scale: Scale, pods: &[Pod], reading: Reading) -> i32 {
    let mut hpa = FederatedHpa::new(Spec::new(metric, 1..=100));
    let decision = hpa.decide(Instant::now(), current, scale, pods, &[Ok(reading)]);
    decision.expect("the reading is present").proposed.expect("replicas are within the limits")
}

/// The decision of a FederatedHPA on one Pods metric with target 1, for `per_pod` thousandths per pod.
fn step(hpa: &mut FederatedHpa, now: Instant, current: i32, per_pod: i64) -> i32 {
    let count = usize::try_from(current).expect("replicas are not negative");
    let reading = Ok(values(count, per_pod));
    hpa.decide(now, current, all(current), &pods(count), &[reading]).expect("the reading is present").desired
}

// calcPlainMetricReplicas

#[test]
fn replicas_bring_the_average_to_the_target() {
    // 4 pods with an average of 1.05 and a target of 0.7: 1.5 × 4.
    assert_eq!(proposed(pods_metric(700), 4, all(4), &pods(4), values(4, 1050)), 6);
    // 10 pods with 0.25 each: 0.357 × 10, rounded up.
    assert_eq!(proposed(pods_metric(700), 10, all(10), &pods(10), values(10, 250)), 4);
}

#[test]
fn no_change_within_the_tolerance() {
    assert_eq!(proposed(pods_metric(700), 4, all(4), &pods(4), values(4, 769)), 4);
    assert_eq!(proposed(pods_metric(700), 4, all(4), &pods(4), values(4, 631)), 4);
    assert_eq!(proposed(pods_metric(700), 4, all(4), &pods(4), values(4, 777)), 5);
}

#[test]
fn result_is_calibrated_by_the_readable_share() {
    // One of two clusters: 5 of 10 pods, 1.4 each: 2 × 5 / 0.5.
    assert_eq!(proposed(pods_metric(700), 10, all(5), &pods(5), values(5, 1400)), 20);
    // On target nothing changes, although only half was read.
    assert_eq!(proposed(pods_metric(700), 10, all(5), &pods(5), values(5, 700)), 10);
}

#[test]
fn value_without_its_pod_counts_only_in_the_average() {
    // 5 values of 0.7 from an unreachable cluster and 5 of 1.4: 1.05 on average, 1.5 × 5 / 0.5.
    let mut reading: BTreeMap<String, i64> = (0..5).map(|index| (format!("pod-{index}"), 1400)).collect();
    reading.extend((0..5).map(|index| (format!("gone-{index}"), 700)));
    assert_eq!(proposed(pods_metric(700), 10, all(5), &pods(5), Reading::Pods(reading)), 15);
}

#[test]
fn pod_without_value_counts_as_idle_when_scaling_up() {
    // 3 values of 2 with a target of 1, one pod without a value: (6 + 0) / 4 = 1.5, × 4.
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods(4), values(3, 2000)), 6);
    // 1.2 each, one pod without a value: the average of 0.9 would scale down, so nothing changes.
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods(4), values(3, 1200)), 4);
}

#[test]
fn pod_without_value_counts_as_on_target_when_scaling_down() {
    // 3 values of 0.2, one pod without a value: (0.6 + 1) / 4 = 0.4, × 4, rounded up.
    assert_eq!(proposed(pods_metric(1000), 4, all(4), &pods(4), values(3, 200)), 2);
}

#[test]
fn pending_pod_counts_as_idle_only_when_scaling_up() {
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
fn proposal_never_contradicts_the_metric() {
    // A quarter of the replicas was read, and one of the 3 pods has no value: (0.5 + 0.5 + 1) / 3 = 0.666. 0.666 × 3 / 0.25 = 8
    // would scale up, although the usage is below the target.
    let scale = Scale { spec: 1, status: 3 };
    assert_eq!(proposed(pods_metric(1000), 4, scale, &pods(3), values(2, 500)), 4);
}

#[test]
fn pods_metric_without_pods_or_values_is_an_error() {
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
fn object_value_multiplies_the_ready_pods() {
    let metric = || object_metric(ObjectTarget::Value(10_000));
    // 15 with a target of 10: 1.5 × 4.
    assert_eq!(proposed(metric(), 4, all(4), &pods(4), Reading::Object(15_000)), 6);
    let mut one_unready = pods(4);
    one_unready[0].ready = false;
    assert_eq!(proposed(metric(), 4, all(4), &one_unready, Reading::Object(15_000)), 5);
    assert_eq!(proposed(metric(), 4, all(4), &pods(4), Reading::Object(10_900)), 4);
}

#[test]
fn object_value_scales_down_if_a_cluster_is_unreachable() {
    // Half of the value is missing: 0.5 × 5 / 0.5. Of the failure policies only `fail` prevents this scale-down.
    let metric = object_metric(ObjectTarget::Value(10_000));
    assert_eq!(proposed(metric, 10, all(5), &pods(5), Reading::Object(5_000)), 5);
}

// GetObjectPerPodMetricReplicas

#[test]
fn object_average_divides_the_value_by_the_target() {
    let metric = || object_metric(ObjectTarget::AverageValue(1_000));
    assert_eq!(proposed(metric(), 4, all(4), &pods(4), Reading::Object(6_000)), 6);
    assert_eq!(proposed(metric(), 4, all(4), &pods(4), Reading::Object(4_300)), 4);
}

#[test]
fn last_known_values_of_an_unreachable_cluster_would_scale_up_twice() {
    let metric = || object_metric(ObjectTarget::AverageValue(1_000));
    // Without the cluster's values 10 replicas stay: usage 5 on 5 replicas is on target, 5 / 0.5.
    assert_eq!(proposed(metric(), 10, all(5), &pods(5), Reading::Object(5_000)), 10);
    // With its last-known values there would be 40: 10 / 1 / 0.5 = 20, / 0.5.
    assert_eq!(proposed(metric(), 10, all(5), &pods(5), Reading::Object(10_000)), 40);
}

// computeReplicasForMetrics

fn two_metrics() -> FederatedHpa {
    let mut spec = Spec::new(pods_metric(1000), 1..=100);
    spec.metrics.push(object_metric(ObjectTarget::Value(10_000)));
    FederatedHpa::new(spec)
}

#[test]
fn highest_proposal_wins() {
    let readings = [Ok(values(4, 1500)), Ok(Reading::Object(17_500))];
    let decision = two_metrics().decide(Instant::now(), 4, all(4), &pods(4), &readings).unwrap();
    assert_eq!((decision.proposed, decision.usage), (Some(7), Some(17_500)));
}

#[test]
fn failed_metric_prevents_only_scaling_down() {
    let failed = || Err(MetricsError::Empty);
    let up =
        two_metrics().decide(Instant::now(), 4, all(4), &pods(4), &[Ok(values(4, 1500)), failed()]).unwrap();
    assert_eq!(up.desired, 6);
    let expected =
        "invalid metrics (1 invalid out of 2), first error is: no metrics returned from custom metrics API";
    assert_eq!(up.metrics_error.as_deref(), Some(expected));
    let down = two_metrics().decide(Instant::now(), 4, all(4), &pods(4), &[Ok(values(4, 500)), failed()]);
    assert_eq!(down.unwrap_err().to_string(), expected);
}

// reconcileAutoscaler

#[test]
fn no_decision_if_no_cluster_can_be_read() {
    let mut hpa = FederatedHpa::new(Spec::tutorial());
    let decision = hpa.decide(Instant::now(), 10, Scale::default(), &[], &[Ok(values(5, 0))]);
    assert_eq!(decision, Err(DecisionError::NoReplicas));
}

#[test]
fn replicas_outside_the_limits_are_corrected_without_metrics() {
    let mut hpa = FederatedHpa::new(Spec::new(pods_metric(700), 3..=10));
    let desired = |hpa: &mut FederatedHpa, current| {
        hpa.decide(Instant::now(), current, all(current), &[], &[]).expect("limits need no metric").desired
    };
    assert_eq!(desired(&mut hpa, 14), 10);
    assert_eq!(desired(&mut hpa, 2), 3);
}

// normalizeDesiredReplicas (no behavior)

#[test]
fn scale_up_at_most_doubles_or_goes_to_four() {
    let mut hpa = FederatedHpa::new(Spec::new(pods_metric(1000), 1..=100));
    let start = Instant::now();
    assert_eq!(step(&mut hpa, start, 1, 50_000), 4);
    assert_eq!(step(&mut hpa, start + SECOND, 4, 50_000), 8);
    assert_eq!(step(&mut hpa, start + 2 * SECOND, 8, 50_000), 16);
}

#[test]
fn scale_down_waits_for_the_stabilization_window() {
    let mut hpa = FederatedHpa::new(Spec::new(pods_metric(1000), 1..=100));
    let start = Instant::now();
    assert_eq!(step(&mut hpa, start, 8, 1000), 8);
    assert_eq!(step(&mut hpa, start + 299 * SECOND, 8, 250), 8);
    assert_eq!(step(&mut hpa, start + 300 * SECOND, 8, 250), 8);
    assert_eq!(step(&mut hpa, start + 301 * SECOND, 8, 250), 2);
}

#[test]
fn limits_of_the_spec_are_kept() {
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
fn tutorial_app_scales_from_one_to_ten_and_back() {
    let mut hpa = FederatedHpa::new(Spec::tutorial());
    let start = Instant::now();
    let mut replicas = 1;
    let mut changes = Vec::new();
    for second in 0..60 {
        // 20 requests per second from second 0 to 40, then none.
        let per_pod = if second < 40 { 20_000 / i64::from(replicas) } else { 0 };
        let desired = step(&mut hpa, start + second * SECOND, replicas, per_pod);
        if desired != replicas {
            changes.push((second, desired));
            replicas = desired;
        }
    }
    // The recommendation of 1 counts for 10 s. Then 4 pods are allowed in 15 s, then double. At the end 10 s of zeros.
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
fn selected_policy_limits_the_change_within_its_period() {
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
fn policy_counts_the_changes_in_its_period() {
    let start = Instant::now();
    let mut hpa = with_behavior(rules(SelectPolicy::Max, policies()), rules(SelectPolicy::Max, policies()));
    assert_eq!(step(&mut hpa, start, 100, 9000), 125);
    // The period began with 100 replicas, so 125 is the maximum.
    assert_eq!(step(&mut hpa, start + 30 * SECOND, 125, 9000), 125);
    // Down: 100 minus 25 % is 75.
    assert_eq!(step(&mut hpa, start + 31 * SECOND, 125, 100), 75);
    // After one minute the scale-up is out of the period, but the scale-down is not: the period began with 125, × 1.25.
    assert_eq!(step(&mut hpa, start + 61 * SECOND, 75, 9000), 157);
}

#[test]
fn stabilization_window_uses_the_most_cautious_recommendation() {
    let window =
        |seconds| ScalingRules { stabilization: seconds * SECOND, ..rules(SelectPolicy::Max, wide()) };
    let mut hpa = with_behavior(window(10), window(20));
    let start = Instant::now();
    assert_eq!(step(&mut hpa, start, 10, 3000), 10, "10 was the first recommendation");
    assert_eq!(step(&mut hpa, start + 5 * SECOND, 10, 2000), 10);
    assert_eq!(step(&mut hpa, start + 10 * SECOND, 10, 4000), 20, "the lowest of 20 and 40");
    // 0.1 × 20 = 2 is held back by the recommendation of 40 until that is 20 s old.
    assert_eq!(step(&mut hpa, start + 29 * SECOND, 20, 100), 20);
    assert_eq!(step(&mut hpa, start + 30 * SECOND, 20, 100), 2);
}

fn wide() -> Vec<Policy> {
    vec![Policy { value: 900, unit: PolicyUnit::Percent, period: SECOND }]
}

//! Replicas divided between clusters.

/// Divides `replicas` by weight, in the order of `weights`: one after the other, each to the cluster with the highest
/// weight for each of twice its replicas and one (the Webster method); where that is equal, to the one with fewer
/// replicas, then to the first. Nothing is divided by weights that are all zero.
///
/// Karmada's static weight division since 1.16 (`AllocateWebsterSeats`), where the last tie goes by name, up or down as
/// the workload's uid has it.
pub fn divide(replicas: u32, weights: &[u32]) -> Vec<u32> {
    let mut shares = vec![0; weights.len()];
    if weights.iter().all(|weight| *weight == 0) {
        return shares;
    }
    for _ in 0..replicas {
        let next = (0..weights.len()).min_by(|&one, &other| {
            let claim =
                |of: usize, against: usize| u64::from(weights[of]) * (2 * u64::from(shares[against]) + 1);
            claim(other, one).cmp(&claim(one, other)).then(shares[one].cmp(&shares[other]))
        });
        next.into_iter().for_each(|cluster| shares[cluster] += 1);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::divide;

    #[test]
    fn equal_weights_share_equally_and_the_first_takes_the_odd_one() {
        assert_eq!(divide(10, &[1, 1]), [5, 5]);
        assert_eq!(divide(5, &[1, 1]), [3, 2]);
        assert_eq!(divide(1, &[1, 1]), [1, 0]);
        assert_eq!(divide(0, &[1, 1]), [0, 0]);
    }

    #[test]
    fn weights_are_kept_to_where_they_divide_evenly() {
        assert_eq!(divide(9, &[1, 2]), [3, 6]);
        assert_eq!(divide(12, &[1, 2, 3]), [2, 4, 6]);
    }

    #[test]
    fn each_replica_goes_where_the_weight_is_the_most_for_what_is_there() {
        // In turn 4, 2, 4/3, 1, 4/5, 2/3, 4/7, 4/9, 2/5 and 4/11.
        assert_eq!(divide(10, &[1, 2, 4]), [1, 3, 6]);
        // The documentation of Karmada's static weights.
        assert_eq!(divide(9, &[1, 3]), [2, 7]);
    }

    #[test]
    fn where_it_is_the_same_the_cluster_with_fewer_gets_it() {
        // 3, then 1 for either.
        assert_eq!(divide(2, &[1, 3]), [1, 1]);
        assert_eq!(divide(3, &[3, 1]), [2, 1]);
    }

    #[test]
    fn a_cluster_without_weight_gets_nothing() {
        assert_eq!(divide(4, &[1, 0]), [4, 0]);
        assert_eq!(divide(4, &[0, 0]), [0, 0]);
        assert_eq!(divide(4, &[]), Vec::<u32>::new());
    }

    #[test]
    fn every_replica_is_placed() {
        for replicas in 0..50 {
            for weights in [&[1, 1][..], &[1, 2, 3], &[7, 1, 5, 0], &[13]] {
                assert_eq!(
                    divide(replicas, weights).iter().sum::<u32>(),
                    replicas,
                    "{replicas} by {weights:?}"
                );
            }
        }
    }
}

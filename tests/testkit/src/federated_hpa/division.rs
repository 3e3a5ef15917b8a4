//! Division of replicas between clusters.

/// Divides `replicas` between clusters by weight; the shares are in the order of `weights`. The Webster method: each replica
/// goes to the cluster with the highest quotient of its weight and (2 × its replicas + 1). On a tie the cluster with fewer
/// replicas gets it, then the first cluster. If all weights are zero, all shares are zero.
///
/// Karmada's static weight division since 1.16 (`AllocateWebsterSeats`). There the last tie is decided by name, ascending or
/// descending depending on the uid of the workload.
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
    fn equal_weights_give_equal_shares() {
        assert_eq!(divide(10, &[1, 1]), [5, 5]);
        assert_eq!(divide(5, &[1, 1]), [3, 2]);
        assert_eq!(divide(1, &[1, 1]), [1, 0]);
        assert_eq!(divide(0, &[1, 1]), [0, 0]);
    }

    #[test]
    fn shares_match_weights_that_divide_evenly() {
        assert_eq!(divide(9, &[1, 2]), [3, 6]);
        assert_eq!(divide(12, &[1, 2, 3]), [2, 4, 6]);
    }

    #[test]
    fn replica_goes_to_the_highest_quotient() {
        // The quotients in order: 4, 2, 4/3, 1, 4/5, 2/3, 4/7, 4/9, 2/5 and 4/11.
        assert_eq!(divide(10, &[1, 2, 4]), [1, 3, 6]);
        // The example in Karmada's documentation of static weights.
        assert_eq!(divide(9, &[1, 3]), [2, 7]);
    }

    #[test]
    fn cluster_with_fewer_replicas_wins_a_tie() {
        // The quotients: first 3, then 1 for both clusters.
        assert_eq!(divide(2, &[1, 3]), [1, 1]);
        assert_eq!(divide(3, &[3, 1]), [2, 1]);
    }

    #[test]
    fn cluster_without_weight_gets_no_replicas() {
        assert_eq!(divide(4, &[1, 0]), [4, 0]);
        assert_eq!(divide(4, &[0, 0]), [0, 0]);
        assert_eq!(divide(4, &[]), Vec::<u32>::new());
    }

    #[test]
    fn all_replicas_are_divided() {
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

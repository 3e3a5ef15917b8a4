//! Replicas divided between clusters.

/// Divides `replicas` by weight, in the order of `weights`: whole shares first, what is left by the largest
/// remainder; where remainders are equal, to the heavier cluster and then to the first.
///
/// Karmada's static weight division (`Dispenser.TakeByWeight`), which hands out the rest in the order of weight
/// and has the remainder as a to-do; for equal weights both come to the same. Nothing is divided by weights that
/// are all zero.
pub fn divide(replicas: u32, weights: &[u32]) -> Vec<u32> {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let exact = |weight: u32| u64::from(weight) * u64::from(replicas);
    let mut shares: Vec<u32> = weights.iter().map(|weight| (exact(*weight) / sum) as u32).collect();
    let rest = replicas - shares.iter().sum::<u32>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse((exact(weights[*index]) % sum, weights[*index])));
    for index in order.into_iter().take(rest as usize) {
        shares[index] += 1;
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
    fn the_rest_goes_to_the_largest_remainder() {
        // 10 by 1:2:4 is 1.43, 2.86 and 5.71.
        assert_eq!(divide(10, &[1, 2, 4]), [1, 3, 6]);
        // 3 by 3:1 is 2.25 and 0.75.
        assert_eq!(divide(3, &[3, 1]), [2, 1]);
    }

    #[test]
    fn equal_remainders_go_to_the_heavier_cluster() {
        // 2 by 1:3 is 0.5 and 1.5.
        assert_eq!(divide(2, &[1, 3]), [0, 2]);
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

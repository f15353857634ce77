//! The first values of a list in the order of their keys.

/// The values with the smallest keys among those pushed, in little more memory than they need themselves.
pub(super) struct First<K, V> {
    most: usize,
    /// The values so far, each with its key and its place in the order of pushing. At most twice as many as wanted.
    kept: Vec<(K, usize, V)>,
    pushed: usize,
    /// A key that is not among the first ones. A value that comes with it, or with a larger one, is left out.
    surplus: Option<K>,
}

impl<K: Copy + Ord, V> First<K, V> {
    pub(super) fn new(most: usize) -> First<K, V> {
        First { most, kept: Vec::new(), pushed: 0, surplus: None }
    }

    pub(super) fn push(&mut self, key: K, value: V) {
        self.pushed += 1;
        if self.surplus.is_some_and(|surplus| key >= surplus) {
            return;
        }
        self.kept.push((key, self.pushed, value));
        if self.kept.len() > self.most.saturating_mul(2) {
            self.drop_surplus();
        }
    }

    /// Returns the values by their keys, and the number of the values that were left out.
    ///
    /// Values with equal keys stay in the order of pushing.
    pub(super) fn into_sorted(mut self) -> (Vec<V>, usize) {
        self.drop_surplus();
        self.kept.sort_unstable_by_key(|&(key, place, _)| (key, place));
        let left_out = self.pushed - self.kept.len();
        (self.kept.into_iter().map(|(_, _, value)| value).collect(), left_out)
    }

    fn drop_surplus(&mut self) {
        if self.kept.len() > self.most {
            let (_, (key, ..), _) = self.kept.select_nth_unstable_by_key(self.most, |&(key, place, _)| (key, place));
            self.surplus = Some(*key);
            self.kept.truncate(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::First;

    #[test]
    fn the_first_values_are_those_of_a_stable_sort() {
        let keys: Vec<usize> = (0..100).map(|number| number * 37 % 10).collect();
        let mut sorted: Vec<usize> = (0..keys.len()).collect();
        sorted.sort_by_key(|&index| keys[index]);
        for most in [0, 1, 7, 50, 99, 100, usize::MAX] {
            let mut first = First::new(most);
            for (index, &key) in keys.iter().enumerate() {
                first.push(key, index);
                assert!(first.kept.len() <= most.saturating_mul(2));
            }
            let shown = most.min(keys.len());
            assert_eq!(first.into_sorted(), (sorted[..shown].to_vec(), keys.len() - shown));
        }
    }
}

//! Reserves memory for responses before it is allocated.

use thiserror::Error;

/// Reserves a number of bytes from the memory budget; 0 is valid. Readers and encoders call it at least once per item. So
/// they stop early if no memory is left, or if the caller has gone.
pub type Reserve<'a> = dyn FnMut(usize) -> Result<(), Stopped> + 'a;

/// Why reading or encoding stopped early.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Stopped {
    /// The memory budget is used up.
    #[error("no memory is left in the budget")]
    NoMemory,
    /// The work needs more memory than its limit, even if memory is left.
    #[error("the memory limit is exceeded")]
    LimitExceeded,
    /// The caller no longer waits for the result.
    #[error("the caller no longer waits")]
    CallerGone,
}

/// Appends an element. Reserves the memory first.
///
/// # Errors
/// If no memory is left, or if the caller has gone.
pub fn push<T>(elements: &mut Vec<T>, element: T, reserve: &mut Reserve<'_>) -> Result<(), Stopped> {
    reserve_capacity(elements, 1, reserve)?;
    elements.push(element);
    Ok(())
}

/// Makes room for `count` more elements. If it allocates, it makes room for at least half of the current length, so that
/// appending is cheap.
///
/// # Errors
/// If no memory is left, or if the caller has gone.
pub fn reserve_capacity<T>(
    elements: &mut Vec<T>,
    count: usize,
    reserve: &mut Reserve<'_>,
) -> Result<(), Stopped> {
    let (length, capacity) = (elements.len(), elements.capacity());
    if capacity - length >= count {
        return reserve(0);
    }
    let more = count.max(length / 2).max(4);
    reserve((length + more - capacity) * size_of::<T>())?;
    elements.reserve_exact(more);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reserved_before_it_is_allocated() {
        let (mut elements, mut reserved, limit) = (Vec::new(), 0, 4096);
        let mut reserve = |bytes| {
            reserved += bytes;
            if reserved > limit { Err(Stopped::NoMemory) } else { Ok(()) }
        };
        let mut allocated = 0;
        let stopped = (0_u64..).find_map(|number| {
            allocated = elements.capacity() * size_of::<u64>();
            push(&mut elements, number, &mut reserve).err()
        });
        assert_eq!(stopped, Some(Stopped::NoMemory));
        assert!(allocated <= limit && elements.capacity() * size_of::<u64>() == allocated, "{allocated}");
        assert!(elements.len() > 200, "unused memory: {} elements", elements.len());
    }
}

//! Memory for what is read and written, reserved before it is allocated.

use thiserror::Error;

/// Reserves so many bytes, which 0 may be. It is called between two items at least, so that work stops for which there is
/// no memory, or for which nobody waits any more.
pub type Reserve<'a> = dyn FnMut(usize) -> Result<(), Stopped> + 'a;

/// Why work stops before its end.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Stopped {
    /// There is no memory left for it.
    #[error("there is no memory left for it")]
    NoMemory,
    /// It would take more memory than it may, whatever is left.
    #[error("it takes more memory than it may")]
    TooMuch,
    /// Nobody waits for its result any more.
    #[error("nobody waits for it any more")]
    CallerLeft,
}

/// Adds an element.
///
/// # Errors
/// If there is no memory for it, or nobody waits for it any more.
pub fn push<T>(elements: &mut Vec<T>, element: T, reserve: &mut Reserve<'_>) -> Result<(), Stopped> {
    make_room(elements, 1, reserve)?;
    elements.push(element);
    Ok(())
}

/// Makes room for `count` more elements, and for half as many as there are if memory has to be allocated for that.
///
/// # Errors
/// If there is no memory for them, or nobody waits for them any more.
pub fn make_room<T>(elements: &mut Vec<T>, count: usize, reserve: &mut Reserve<'_>) -> Result<(), Stopped> {
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
    fn what_is_allocated_was_reserved_before() {
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
        assert!(elements.len() > 200, "memory is used: {}", elements.len());
    }
}

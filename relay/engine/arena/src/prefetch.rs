//! Hints to the CPU to fetch memory into its cache. An engine with a thousand viewers visits each of them a few times a second, and
//! their state has left the cache in between. A hint reads nothing and changes nothing. Read `sessions.rs` next.

/// Bytes of a cache line on every CPU that this runs on.
const LINE: usize = 64;

/// Fetches a value, but nothing that it points at.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_front(value, size_of_val(value));
}

/// Fetches the first bytes of a value.
#[inline(always)]
pub fn prefetch_front<T: ?Sized>(value: &T, bytes: usize) {
    let first: *const i8 = std::ptr::from_ref(value).cast();
    for at in (0..bytes.min(size_of_val(value))).step_by(LINE) {
        // SAFETY: the instruction faults on no address at all, and this one lies within the value.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(first.add(at));
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = first.wrapping_add(at);
    }
}

//! The allocator of the C library (mallopt(3)).

/// Makes the allocator keep little: one arena instead of one a thread, and what is free at the top goes back to the
/// system. An apply of thousands of tenants needs for a moment a multiple of what stays.
pub fn keep_little() {
    const TRIM_THRESHOLD: i32 = 128 * 1024;
    // SAFETY: mallopt takes two integers and is called before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
    }
}

/// Gives free memory back, also from between what is used.
pub fn give_back() {
    // SAFETY: malloc_trim may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

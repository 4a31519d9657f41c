//! The allocator, and what keeps it from holding more than is in use.

use std::time::Duration;

/// A request allocates some dozens of times, on threads that free what others
/// allocated; the C library's allocator took a sixth of the processor for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often freed memory is looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// Asks the system not to make huge pages of this process's memory. They hold
/// two mebibytes for whatever lies in them: half as much again was resident
/// with them.
pub(crate) fn without_huge_pages() {
    // Where that is not allowed, more is resident and nothing is wrong.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Gives freed memory back to the system, for ever. The allocator waits a second
/// with it, in case it is wanted again, and then for a thread that happens to
/// allocate much: after a burst there is none.
pub(crate) async fn give_back() {
    loop {
        tokio::time::sleep(INTERVAL).await;
        collect();
    }
}

fn collect() {
    // What was freed too recently stays: only what is due is given back.
    const IS_FORCED: bool = false;
    #[expect(unsafe_code, reason = "the allocator has no other interface")]
    // SAFETY: it takes no pointer, and may be called by any thread at any time.
    unsafe {
        libmimalloc_sys::mi_collect(IS_FORCED);
    }
}

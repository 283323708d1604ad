//! The mapped memory as a slice of atomic words. Apart from the hints of `prefetch.rs` this is the only unsafe code of the crate. Owns the
//! mapping and its file descriptor; must never know what lies where. Read `arena.rs` next.
//!
//! Every access of every process is atomic, so no data race exists, whatever another process does. The protocols above decide which
//! values are meaningful.

use std::alloc;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::slice;

use crate::sync::AtomicU64;

pub(crate) struct Mapping {
    base: NonNull<AtomicU64>,
    words: usize,
    backing: Backing,
}

enum Backing {
    Shared(OwnedFd),
    /// For tests under Miri, which has no `mmap` of files.
    Heap,
}

// SAFETY: the memory is only ever reached as atomics, and `Mapping` itself is immutable after construction.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// An anonymous file of `bytes` zeros, mapped.
    pub(crate) fn create(bytes: u64) -> io::Result<Mapping> {
        // SAFETY: the name is a NUL-terminated literal; the call has no other precondition.
        let fd = unsafe { libc::memfd_create(c"millrace-arena".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let len = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: plain system call on a descriptor that we own.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Mapping::shared(fd, bytes)
    }

    /// Maps all of the file behind `fd`, through a descriptor of its own.
    pub(crate) fn attach(fd: RawFd) -> io::Result<Mapping> {
        // SAFETY: plain system call; an `fd` that is not open comes back as EBADF.
        let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if own < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `own` was just opened and nothing else owns it.
        let own = unsafe { OwnedFd::from_raw_fd(own) };
        let size = std::fs::File::from(own.try_clone()?).metadata()?.len();
        Mapping::shared(own, size)
    }

    fn shared(fd: OwnedFd, bytes: u64) -> io::Result<Mapping> {
        let len = usize::try_from(bytes).map_err(io::Error::other)? & !7;
        if len == 0 {
            return Err(io::Error::other("the file is empty"));
        }
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; it aliases no Rust object.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap gives MAP_FAILED and never null on failure");
        Ok(Mapping { base, words: len / 8, backing: Backing::Shared(fd) })
    }

    /// Zeroed memory of this process alone.
    pub(crate) fn heap(bytes: u64) -> Mapping {
        let words = usize::try_from(bytes / 8).expect("a test's arena fits the address space");
        assert!(words > 0, "an arena has at least its header");
        let layout = alloc::Layout::array::<AtomicU64>(words).expect("a test's arena fits the address space");
        // SAFETY: the layout is not empty, as asserted above.
        let base = unsafe { alloc::alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base.cast()) else { alloc::handle_alloc_error(layout) };
        Mapping { base, words, backing: Backing::Heap }
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.words
    }

    /// `len` words from `start` on. Panics when they are not all there.
    pub(crate) fn words(&self, start: usize, len: usize) -> &[AtomicU64] {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.words), "beyond the mapping");
        // SAFETY: `base` points to `words` aligned words that live as long as `self`, and the range was just checked.
        // `AtomicU64` has the size and validity of `u64` and allows change from outside, which other processes cause.
        // The file is never shrunk.
        unsafe { slice::from_raw_parts(self.base.as_ptr().add(start), len) }
    }

    pub(crate) fn fd(&self) -> Option<RawFd> {
        match &self.backing {
            Backing::Shared(fd) => Some(fd.as_raw_fd()),
            Backing::Heap => None,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match self.backing {
            Backing::Shared(_) => {
                // SAFETY: the range is exactly what `shared` mapped, and no reference into it outlives `self`.
                unsafe { libc::munmap(self.base.as_ptr().cast(), self.words * 8) };
            }
            Backing::Heap => {
                let layout = alloc::Layout::array::<AtomicU64>(self.words).expect("it was allocated with this layout");
                // SAFETY: allocated in `heap` with the same layout, freed once.
                unsafe { alloc::dealloc(self.base.as_ptr().cast(), layout) };
            }
        }
    }
}

//! An alarm that is better than the poller's own.
//!
//! `epoll_wait` counts in milliseconds and mio rounds up, so an open-loop schedule would be late by
//! half a millisecond on average and charge that to the server. A timer descriptor is exact. Where
//! the system has none the poller's precision has to do.

use std::io;
use std::time::Duration;

/// Event token of the alarm.
pub(crate) const TOKEN: mio::Token = mio::Token(usize::MAX);
/// Sleeps at least this long are left to the poller.
const COARSE: Duration = Duration::from_millis(20);

#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Alarm(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Alarm {
    pub(crate) fn new(registry: &mio::Registry) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd as _;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let raw = fd.as_raw_fd();
        registry.register(
            &mut mio::unix::SourceFd(&raw),
            TOKEN,
            mio::Interest::READABLE,
        )?;
        Ok(Self(fd))
    }

    /// How long the poller may sleep at most so that it wakes up after `sleep`.
    pub(crate) fn set(&self, sleep: Duration) -> io::Result<Duration> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        if sleep.is_zero() || sleep >= COARSE {
            return Ok(sleep);
        }
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: sleep.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(COARSE)
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn new(_registry: &mio::Registry) -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn set(&self, sleep: Duration) -> io::Result<Duration> {
        Ok(sleep)
    }
}
